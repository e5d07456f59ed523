"""By how much a run misses the memory of its GPUs or nodes, where, and what takes most of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmsim.memory import outside
from llmsim.memory.summary import CATEGORIES

_SPOKEN = {"optimizer": "optimizer states", "temporary": "working memory", "reserved": "what libraries reserve"}
#: By place: what `number` counts, what is short, who has it.
_PLACES = {
    "gpu": ("stage", "", "a GPU has"),
    "cpu": ("node", " of CPU memory", "it has"),
    "nvme": ("node", " of disks", "it has"),
}


@dataclass(frozen=True)
class Shortfall:
    """GiB. place: gpu, cpu or nvme; number: the pipeline stage, or the node, that holds most.

    category: what most of it is (a name of the result's `memory`).
    """

    place: str
    number: int
    peak_gib: float
    capacity_gib: float
    category: str
    category_gib: float

    @property
    def missing_gib(self) -> float:
        return self.peak_gib - self.capacity_gib

    @property
    def brief(self) -> str:
        counted, short, _ = _PLACES[self.place]
        return f"{counted} {self.number} needs {self.peak_gib:.1f} GiB of {self.capacity_gib:.1f} GiB{short}"

    def __str__(self) -> str:
        counted, short, owner = _PLACES[self.place]
        what = _SPOKEN.get(self.category, self.category)
        return (
            f"{counted} {self.number} needs {self.peak_gib:.1f} GiB{short}, {self.missing_gib:.1f} GiB more than the "
            f"{self.capacity_gib:.1f} GiB that {owner}; {self.category_gib:.1f} GiB of it are {what}"
        )


def shortfalls(memory: Mapping[str, Any]) -> list[Shortfall]:
    """Of the `memory` of a result: of GPUs, CPU memory, disks. Empty where it fits."""
    stage = max(memory["per_stage"], key=lambda entry: entry["peak_gib"])
    found = []
    if stage["peak_gib"] > memory["capacity_gib"]:
        found.append(_shortfall("gpu", stage["stage"], memory["capacity_gib"], stage, CATEGORIES))
    for place in outside.PLACES:
        if (entry := memory.get(place)) and not entry["fits"]:
            found.append(_shortfall(place, entry["node"], entry["capacity_gib"], entry, outside.CATEGORIES))
    return found


def fullness(memory: Mapping[str, Any]) -> float:
    """Share of the capacity that is needed, where it is highest: over 1 where a run does not fit."""
    entries = [memory, *(memory[place] for place in outside.PLACES if place in memory)]
    return max(entry["peak_gib"] / entry["capacity_gib"] for entry in entries)


def _shortfall(
    place: str, number: int, capacity: float, entry: Mapping[str, Any], categories: tuple[str, ...]
) -> Shortfall:
    parts = {name: entry[f"{name}_gib"] for name in categories if f"{name}_gib" in entry}
    category = max(parts, key=lambda name: parts[name])
    return Shortfall(place, number, entry["peak_gib"], capacity, category, parts[category])
