"""GPU facts by name: what the vendor promises, not what a kernel achieves. Data and sources: `gpus.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

from llmsim.errors import CatalogueError, nearest
from llmsim.units import parse_quantity


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as a process sees it. Bandwidths are bytes/s of one direction; peaks are dense FLOP/s."""

    name: str
    label: str
    architecture: str  # volta | ampere | ada | hopper | blackwell | cdna2 | cdna3
    kernels: str  # whose constants in kernels.yaml its kernels have
    # fp32, tf32, fp16, bf16, fp8; absent = unsupported. A plain dict, so that a Gpu can be pickled.
    peak_flops: Mapping[str, float] = field(hash=False)
    memory_bytes: float  # usable HBM as nvidia-smi shows it
    memory_bandwidth: float
    sms: int
    clock_hz: float
    l2_bytes: float
    nvlink_bandwidth: float  # all scale-up links together; 0 without any
    nvlink_links: int
    pcie_bandwidth: float
    c2c_bandwidth: float | None  # coherent link to the host CPU (Grace), where there is one
    tdp_w: float
    idle_w: float
    sources: tuple[str, ...]

    def peak(self, precision: str) -> float:
        """Dense FLOP/s in a precision; `CatalogueError` when this GPU has no such arithmetic."""
        if precision not in self.peak_flops:
            known = ", ".join(self.peak_flops)
            raise CatalogueError(f"{self.label} has no {precision} arithmetic; it has {known}")
        return self.peak_flops[precision]


@lru_cache(maxsize=1)
def _table() -> tuple[dict[str, dict], dict[str, str]]:
    """The raw entries and the map from every accepted name (aliases included) to its entry."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries = yaml.load(files("llmsim.catalogue").joinpath("gpus.yaml").read_text("utf-8"), loader)
    names = {name: name for name in entries}
    for name, entry in entries.items():
        names |= {alias: name for alias in entry.get("aliases", ())}
    return entries, names


def gpus() -> list[str]:
    """All catalogue names, oldest generation first."""
    return list(_table()[0])


@lru_cache(maxsize=256)
def gpu(name: str) -> Gpu:
    """The GPU of this name or alias, upper or lower case, `a100-80gb` or `a100-80` alike.

    Raises `CatalogueError` with the nearest known name.
    """
    entries, names = _table()
    wanted = str(name).strip().lower().replace("_", "-")
    key = names.get(wanted) or names.get(wanted.removesuffix("gb"))
    if key is None:
        hint = nearest(wanted, names) or f"; known: {', '.join(entries)}"
        raise CatalogueError(f"no GPU named {name!r} in the catalogue{hint}")
    entry = entries[key]
    return Gpu(
        name=key,
        label=entry["label"],
        architecture=entry["architecture"],
        kernels=entry.get("kernels", entry["architecture"]),
        peak_flops={p: float(v) * 1e12 for p, v in entry["peak"].items()},
        memory_bytes=parse_quantity(entry["memory"], "bytes"),
        memory_bandwidth=parse_quantity(entry["memory_bandwidth"], "bandwidth"),
        sms=entry["sms"],
        clock_hz=entry["clock"] * 1e6,
        l2_bytes=parse_quantity(entry["l2"], "bytes"),
        nvlink_bandwidth=parse_quantity(entry["nvlink"], "bandwidth"),
        nvlink_links=entry["nvlink_links"],
        pcie_bandwidth=parse_quantity(entry["pcie"], "bandwidth"),
        c2c_bandwidth=parse_quantity(entry["c2c"], "bandwidth") if "c2c" in entry else None,
        tdp_w=parse_quantity(entry["tdp"], "power"),
        idle_w=parse_quantity(entry["idle"], "power"),
        sources=tuple(entry["sources"]),
    )
