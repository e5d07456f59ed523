"""Rents, carbon of electricity and power of hosts: dated facts that stand in for what a user does not give."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for one GPU and hour, with the month and the place it was seen."""

    usd: float
    low: float
    high: float
    date: str
    source: str


@dataclass(frozen=True, slots=True)
class Carbon:
    """kg CO2-equivalent per kWh of electricity."""

    kg_per_kwh: float
    source: str


@dataclass(frozen=True, slots=True)
class HostPower:
    """`node_over_gpus`: nameplate of a node over its GPUs' TDPs; `load`: share of the difference drawn in training."""

    node_over_gpus: float
    load: float


@lru_cache(maxsize=4)
def _read(name: str) -> dict:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(files("llmsim.catalogue").joinpath(name).read_text("utf-8"), loader)


def gpu_price(name: str) -> Price | None:
    """The catalogue's price of a GPU by its catalogue name, None where no source was found."""
    entry = _read("prices.yaml")["gpu_hour"].get(name)
    if entry is None:
        return None
    return Price(entry["usd"], entry["low"], entry["high"], str(entry["date"]), entry["source"])


def carbon() -> Carbon:
    """The carbon of electricity where the user does not give one."""
    entry = _read("prices.yaml")["carbon"]
    return Carbon(entry["kg_per_kwh"], entry["source"])


def host_power() -> HostPower:
    """What the hosts of a node draw beside its GPUs."""
    entry = _read("power.yaml")
    return HostPower(entry["node_over_gpus"], entry["host_load"])
