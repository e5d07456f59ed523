"""Achieved shares of the bandwidth that offloading uses: `offload.yaml`, read once. Sources are in the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class OffloadShares:
    """to_host, from_host: of a GPU's link to its CPU, by kind of link. nvme: of disks. cpu_update: of CPU memory."""

    to_host: Mapping[str, float]
    from_host: Mapping[str, float]
    nvme: float
    cpu_update: float


@cache
def offload_shares() -> OffloadShares:
    """The shares of `offload.yaml`."""
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("offload.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    ways = {way: {link: table[link][way] for link in ("pcie", "c2c")} for way in ("to_host", "from_host")}
    return OffloadShares(**ways, nvme=float(table["nvme"]), cpu_update=float(table["cpu_update"]))
