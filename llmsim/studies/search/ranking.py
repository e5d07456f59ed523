"""What makes one layout better than another, and the words for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.studies.search.bounds import Bound
from llmsim.studies.sweep.outcome import Row
from llmsim.units import format_seconds

if TYPE_CHECKING:
    from llmsim.studies.search.candidate import Layout

_WORDS = {
    "compute": "computing",
    "exposed_tp": "tensor parallel communication",
    "exposed_cp": "context parallel communication",
    "exposed_ep": "expert parallel communication",
    "exposed_pp": "pipeline transfers",
    "exposed_dp": "data parallel communication",
    "bubble": "pipeline bubbles",
    "optimizer": "optimizer step",
    "offload": "offloading",
    "data": "waiting for data",
    "other": "other work",
}


@dataclass(frozen=True, slots=True)
class Objective:
    """Less is better. of_bound(bound, gpus) is never more than of_row of the same layout."""

    of_row: Callable[[Row], float]
    of_bound: Callable[[Bound, int], float]


OBJECTIVES = {
    "time": Objective(lambda row: row["iteration_time_s"], lambda bound, gpus: bound.seconds),
    "cost": Objective(lambda row: row["iteration_time_s"] * row["gpus"], lambda bound, gpus: bound.seconds * gpus),
    "memory": Objective(lambda row: row["memory.peak_gib"], lambda bound, gpus: bound.bytes / 2**30),
}


def on_front(layouts: "list[Layout]") -> "list[Layout]":
    """Those to which no other is both at least as fast and at least as small, from fast to small."""
    front: list[Layout] = []
    for layout in sorted(layouts, key=lambda each: (each.seconds, each.peak_gib)):
        if not front or layout.peak_gib < front[-1].peak_gib:
            front.append(layout)
    return front


def why_slower(row: Row, best: Row, objective: str) -> str:
    """By how much it loses, and which parts of the iteration grew most."""
    if objective == "memory":
        return f"{row['memory.peak_gib'] - best['memory.peak_gib']:.1f} GiB more"
    rank = OBJECTIVES[objective].of_row
    said = f"{rank(row) / rank(best) - 1:+.1%}"
    grown = {name: row[f"time_breakdown.{name}"] - best[f"time_breakdown.{name}"] for name in _WORDS}
    most = sorted((name for name in grown if grown[name] > 1e-3 * best["iteration_time_s"]), key=lambda n: -grown[n])
    parts = [f"{_WORDS[name]} +{format_seconds(grown[name])}" for name in most[:2]]
    return f"{said}: {', '.join(parts)}" if parts else f"{said}, spread over all parts"
