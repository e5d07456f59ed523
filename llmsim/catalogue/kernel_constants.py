"""Constants of compute kernels by GPU architecture: `kernels.yaml`, read once. Units and sources are in the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import inf

from llmsim.errors import CatalogueError, nearest


@dataclass(frozen=True)
class GemmConstants:
    """What a matrix product achieves (`llmsim.cost.gemm`)."""

    tiles: tuple[tuple[int, int], ...]  # rows and columns of one thread block's output
    tile_half: float
    ramp_bytes: float
    issue: Mapping[str, float]  # of peak, by precision
    power: Mapping[str, float]  # sustained FLOP/s at `tdp`, by precision; absent = not limited by power
    tdp: float
    power_exponent: float
    splits: tuple[int, ...]
    split_latency: float
    split_rate: float
    k_step: int
    alignment: float
    unaligned: float
    unaligned_batched: float
    accumulate_exposed: float


@dataclass(frozen=True)
class AttentionKernel:
    """One generation of fused attention kernels on one architecture (`llmsim.cost.attention`)."""

    math: float
    softmax: float
    overhead: float
    backward: float
    backward_overhead: float


@dataclass(frozen=True)
class AttentionConstants:
    """What fused attention achieves, by kernel family: flash1, flash2, flash3, prefill."""

    families: Mapping[str, AttentionKernel]
    query_tile: int  # queries of a block in the forward
    backward_tile: int  # keys of a block in the backward
    tail: float
    overlap: float
    head_step: int
    backward_bytes: float
    backward_kernels: int

    def family(self, name: str) -> AttentionKernel:
        """The kernel of this family, or the generation that this architecture runs instead of it."""
        if name in self.families:
            return self.families[name]
        known = sorted(k for k in self.families if k.startswith("flash"))
        older = [k for k in known if k <= name]
        return self.families[older[-1] if older else known[0]]


@dataclass(frozen=True)
class MemoryConstants:
    """What a memory-bound kernel achieves (`llmsim.cost.memory_bound`)."""

    hbm: float  # share of HBM bandwidth in matrix products and attention
    elementwise: float  # the same in memory-bound kernels
    l2_share: float
    l2_rate: float
    block_bytes: float


@dataclass(frozen=True)
class KernelConstants:
    """All constants of one architecture. training: share of the math rates that a job sustains, by precision."""

    launch: float
    blend: float
    gemm: GemmConstants
    attention: AttentionConstants
    memory: MemoryConstants
    training: Mapping[str, float]


@cache
def _table() -> dict:
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("kernels.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def kernel_constants(architecture: str) -> KernelConstants:
    """The constants of one GPU architecture. Raises `CatalogueError` when the catalogue has none."""
    table = _table()
    if architecture not in table["architectures"]:
        known = table["architectures"]
        hint = nearest(architecture, known) or f"; known: {', '.join(known)}"
        raise CatalogueError(f"no kernel constants for the architecture {architecture!r}{hint}")
    own = table["architectures"][architecture]
    gemm = table["gemm"] | {
        "tiles": tuple(tuple(tile) for tile in own["tiles"]),
        "splits": tuple(table["gemm"]["splits"]),
        "tile_half": own["tile_half"],
        "ramp_bytes": own["ramp_bytes"],
        "accumulate_exposed": own["accumulate_exposed"],
        "power_exponent": own["power_exponent"],
        "issue": own["issue"],
        "power": {k: v for k, v in own["power"].items() if k != "tdp"},
        "tdp": own["power"]["tdp"],
    }
    families = {name: AttentionKernel(**kernel) for name, kernel in own["attention"].items()}
    return KernelConstants(
        launch=own["launch"],
        blend=table["blend"],
        gemm=GemmConstants(**gemm),
        attention=AttentionConstants(
            families=families,
            query_tile=own["query_tile"],
            backward_tile=own.get("backward_tile", own["query_tile"]),
            **table["attention"],
        ),
        memory=MemoryConstants(hbm=own["hbm"], elementwise=own["elementwise"], **table["memory"]),
        training=table["training"][architecture],
    )


def sustained(gemm: GemmConstants, precision: str, tdp: float) -> float:
    """FLOP/s that a GPU of this power limit sustains on large products, infinite where power is not the limit."""
    return gemm.power.get(precision, inf) * (tdp / gemm.tdp) ** gemm.power_exponent


def speed_spread() -> float:
    """Coefficient of variation of sustained math rates over GPUs of one kind."""
    return float(_table()["spread"])


def harness_constants() -> dict:
    """What published kernel benchmarks time besides the kernel itself, for comparisons with them."""
    return _table()["harness"]
