"""What was played, ready for the ledgers: rows by class and lane, and tables of what their numbers mean.

It comes from a program that was played, or from a trace that was saved (`analysis.recorded`); the ledgers are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmsim.engine.player import Played
from llmsim.program.passes.labels import Label, Tag
from llmsim.program.passes.precedence import COMPUTING_LANES
from llmsim.program.program import Program

_INSIDE_PASSES = ("compute", "beside", "tp", "cp", "ep")  # streams whose work makes a pass as long as it is

Lanes = dict[str, np.ndarray]


@dataclass(frozen=True)
class Recording:
    """`lanes[class]`: lane -> rows (ops, 4) of label, tag, start (s), end (s), in the order in which they ran.

    receipts: by class, rows of the transfers between stages that it receives.
    blocking: computation waits for its own sends to other stages.
    """

    labels: Sequence[Label]
    tags: Sequence[Tag]
    lanes: Sequence[Lanes]
    receipts: Sequence[np.ndarray]
    blocking: bool

    @cached_property
    def iterations(self) -> list[int]:
        """Numbers of those that were played, in order."""
        return sorted({tag.iteration for tag in self.tags}) or [0]

    @cached_property
    def category(self) -> np.ndarray:
        """int[labels]: `Label.category`."""
        return np.array([label.category for label in self.labels], dtype=int)

    @cached_property
    def groups(self) -> np.ndarray:
        return np.array([label.group for label in self.labels], dtype=str)

    @cached_property
    def inside(self) -> np.ndarray:
        """bool[labels]: whether a pass ends no earlier than this, on whatever lane it is."""
        return np.array([label.stream in _INSIDE_PASSES for label in self.labels], dtype=bool)

    @cached_property
    def in_pipeline(self) -> np.ndarray:
        """bool[tags]: whether it is of a pass."""
        return np.array([tag.micro_batch >= 0 for tag in self.tags], dtype=bool)

    def of_iteration(self, number: int) -> "Recording":
        """The rows of one iteration alone."""
        chosen = np.array([tag.iteration == number for tag in self.tags], dtype=bool)
        lanes = [{name: _chosen(rows, chosen) for name, rows in by_name.items()} for by_name in self.lanes]
        receipts = [_chosen(rows, chosen) for rows in self.receipts]
        return Recording(self.labels, self.tags, lanes, receipts, self.blocking)

    def end_before(self, number: int) -> float:
        """When the iterations before this one were over; if there are none, when the first row of all began."""
        earlier = np.array([tag.iteration < number for tag in self.tags], dtype=bool)
        rows = np.concatenate([np.empty((0, 4)), *(rows for by_name in self.lanes for rows in by_name.values())])
        before = _chosen(rows, earlier)
        return float(before[:, 3].max()) if len(before) else float(rows[:, 2].min()) if len(rows) else 0.0

    @cached_property
    def window(self) -> tuple[float, float]:
        """From the first to the last work of a pass, on whatever class."""
        first, last = np.inf, -np.inf
        for by_name in self.lanes:
            for name, rows in by_name.items():
                own = self.pass_work(name, rows)
                first, last = min(first, own[:, 2].min(initial=np.inf)), max(last, own[:, 3].max(initial=-np.inf))
        return (float(first), float(last)) if first <= last else (0.0, 0.0)

    def pass_work(self, lane: str, rows: np.ndarray) -> np.ndarray:
        """The rows of a lane that belong to passes: what computes, and what its pass waits for."""
        belongs = self.in_pipeline[rows[:, 1].astype(int)]
        if lane not in COMPUTING_LANES:
            belongs &= self.inside[rows[:, 0].astype(int)]
        return rows[belongs]


def record(program: Program, played: Played) -> Recording:
    """The recording of a program that was played."""
    lanes: list[Lanes] = [{} for _ in program.classes.count]
    receipts: list[list[np.ndarray]] = [[] for _ in program.classes.count]
    peer = np.array([label.peer for label in program.labels])
    for lane, rows in zip(program.plan.lanes, played.rows):
        lanes[lane.owner][lane.name] = rows
        if lane.name == "pp_send":
            to = peer[rows[:, 0].astype(int)]
            for number in np.unique(to):
                receipts[number].append(rows[to == number])
    received = [np.concatenate([np.empty((0, 4)), *parts]) for parts in receipts]
    return Recording(program.labels, program.tags, lanes, received, program.blocking)


def _chosen(rows: np.ndarray, tags: np.ndarray) -> np.ndarray:
    return rows[tags[rows[:, 1].astype(int)]]
