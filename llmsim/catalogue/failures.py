"""Failure rates of published fleets, and what restarts and checkpoints take: `failures.yaml`, read once."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from llmsim.errors import CatalogueError, nearest

_DAY = 86400.0


@dataclass(frozen=True)
class Fleet:
    """Mean seconds between failures of one part, by class of parts; `planned` is of the whole job."""

    name: str
    source: str
    mtbf: Mapping[str, float]


@dataclass(frozen=True)
class JobConstants:
    """What a job takes besides training; units and sources are in the file."""

    detect: float
    diagnose: float
    start: float
    group_seconds: float
    group_gpus: float
    group_exponent: float
    storage_per_node: float
    save_plan: float
    slow_gpu_factor: float
    slow_gpu_found: float
    flap_factor: float
    flap_time: float
    sdc_found: float

    def restart(self, gpus: int) -> float:
        """Seconds to start a job on so many GPUs: its processes, then their groups."""
        return self.start + self.group_seconds * (gpus / self.group_gpus) ** self.group_exponent


@cache
def _table() -> dict[str, Any]:
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("failures.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def fleets() -> list[str]:
    """Names of all presets."""
    return list(_table()["presets"])


@cache
def fleet(name: str) -> Fleet:
    """The preset of this name; raises `CatalogueError` with the nearest known one."""
    presets = _table()["presets"]
    if name not in presets:
        hint = nearest(name, presets) or f"; known: {', '.join(presets)}"
        raise CatalogueError(f"no failure preset named {name!r}{hint}")
    entry = presets[name]
    rates = {part: entry["parts"][part] * entry["days"] * _DAY / count for part, count in entry["counts"].items()}
    return Fleet(name, entry["source"], rates)


@cache
def job_constants() -> JobConstants:
    """The constants of `failures.yaml`."""
    table = _table()
    recovery, group = table["recovery"], table["recovery"]["group_start"]
    return JobConstants(
        detect=float(recovery["detect"]),
        diagnose=float(recovery["diagnose"]),
        start=float(recovery["start"]),
        group_seconds=float(group["seconds"]),
        group_gpus=float(group["gpus"]),
        group_exponent=float(group["exponent"]),
        storage_per_node=float(table["storage"]["per_node"]),
        save_plan=float(table["storage"]["plan"]),
        slow_gpu_factor=float(table["slow_gpu"]["factor"]),
        slow_gpu_found=float(table["slow_gpu"]["found"]),
        flap_factor=float(table["flap"]["factor"]),
        flap_time=float(table["flap"]["time"]),
        sdc_found=float(table["sdc"]["found"]),
    )
