"""By how much a run misses the memory of its GPUs, on which stage, and what takes most of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmsim.memory.summary import CATEGORIES

_SPOKEN = {"optimizer": "optimizer states", "temporary": "working memory", "reserved": "what libraries reserve"}


@dataclass(frozen=True)
class Shortfall:
    """GiB. stage: the pipeline stage that holds most; category: what most of it is (a name of `per_stage`)."""

    stage: int
    peak_gib: float
    capacity_gib: float
    category: str
    category_gib: float

    @property
    def missing_gib(self) -> float:
        return self.peak_gib - self.capacity_gib

    def __str__(self) -> str:
        what = _SPOKEN.get(self.category, self.category)
        return (
            f"stage {self.stage} needs {self.peak_gib:.1f} GiB, {self.missing_gib:.1f} GiB more than the "
            f"{self.capacity_gib:.1f} GiB that a GPU has; {self.category_gib:.1f} GiB of it are {what}"
        )


def shortfall(memory: Mapping[str, Any]) -> Shortfall | None:
    """The shortfall in the `memory` of a result, None where it fits."""
    if memory["fits"]:
        return None
    stage = max(memory["per_stage"], key=lambda entry: entry["peak_gib"])
    parts = {name: stage[f"{name}_gib"] for name in CATEGORIES if f"{name}_gib" in stage}
    category = max(parts, key=lambda name: parts[name])
    return Shortfall(stage["stage"], stage["peak_gib"], memory["capacity_gib"], category, parts[category])
