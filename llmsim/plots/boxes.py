"""What a timeline shows, as plain arrays: rows, task boxes, side work. Both the pictures and the HTML draw this."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from llmsim.analysis.bubbles import pipeline_tasks, rank_bubbles
from llmsim.analysis.columns import map_column
from llmsim.analysis.intervals import subtract, union
from llmsim.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Ranks = Iterable[int] | Literal["all"] | None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a timeline: a representative rank of a stage. `bubble` is the mean over the iterations shown."""

    rank: int
    ranks: int
    stage: int
    bubble: float
    window: tuple[tuple[float, float], ...]  # first to last pipeline op of each iteration, the same for all rows
    comm: tuple[np.ndarray, np.ndarray]  # (start, end) of this rank's communication between its first and last task


@dataclass(frozen=True, slots=True)
class Timeline:
    """`tasks`: `pipeline_tasks` plus `row` and `half` (0 alone, 1 upper, 2 lower half: an F and a B run together).

    `tail`: `row, start_s, end_s, what` of the optimizer and of communication before the first and after the last task.
    """

    rows: tuple[Row, ...]
    tasks: "pd.DataFrame"
    tail: "pd.DataFrame"
    chunks: int
    micro_batches: int
    start: float
    end: float

    @property
    def bubble(self) -> float:
        """Mean bubble fraction of the rows."""
        return float(np.mean([row.bubble for row in self.rows])) if self.rows else 0.0


def lay_out(trace: "pd.DataFrame", ranks: Ranks = None, time_range: tuple[float, float] | None = None) -> Timeline:
    """Rows and boxes of a trace.

    `ranks`: None shows one row a stage (the representative that stands for most ranks), "all" every representative,
    or the ranks to show. `time_range` (s) drops what lies outside. Raises `UserError` for a rank that is not there
    or an empty time range.
    """
    tasks = pipeline_tasks(trace)
    shown = _choose_ranks(trace, ranks)
    low, high = _span(trace, time_range)
    bubbles = rank_bubbles(trace, tasks)
    windows = tasks.groupby("iteration").agg(low=("start_s", "min"), high=("end_s", "max"))
    window = tuple((float(a), float(b)) for a, b in windows.itertuples(index=False))
    by_rank = bubbles.groupby("rank")["bubble_fraction"].mean().to_dict()
    tasks = tasks[tasks["rank"].isin(shown["rank"])].reset_index(drop=True)
    row_of = {rank: row for row, rank in enumerate(shown["rank"])}
    tasks["row"] = tasks["rank"].map(row_of).to_numpy()
    tasks["half"] = _halves(tasks)
    comm, tail = _beside(trace, tasks, row_of)
    rows = tuple(
        Row(int(own.rank), int(own.ranks), int(own.stage), by_rank.get(own.rank, 0.0), window, comm[row])
        for row, own in enumerate(shown.itertuples(index=False))
    )
    chunks = int(tasks["chunk"].max()) + 1 if len(tasks) else 1
    micro_batches = int(tasks["micro_batch"].max()) + 1 if len(tasks) else 0
    tasks, tail = _within(tasks, low, high), _within(tail, low, high)
    return Timeline(rows, tasks, tail, max(1, chunks), micro_batches, low, high)


def _choose_ranks(trace: "pd.DataFrame", ranks: Ranks) -> "pd.DataFrame":
    """`rank, ranks, stage` of the rows to show, sorted by stage and rank."""
    present = trace.drop_duplicates("rank")[["rank", "ranks", "stage"]].sort_values(["stage", "rank"])
    if ranks is None:
        return present.sort_values(["stage", "ranks", "rank"], ascending=[True, False, True]).drop_duplicates("stage")
    if isinstance(ranks, str) and ranks == "all":
        return present
    wanted = [int(rank) for rank in ranks]
    missing = sorted(set(wanted) - set(present["rank"]))
    if missing:
        known = ", ".join(str(rank) for rank in present["rank"].head(12))
        raise UserError(
            f"rank {missing[0]} has no row in the trace; its representative ranks are {known}"
            + (", …" if len(present) > 12 else "")
        )
    return present[present["rank"].isin(wanted)]


def _span(trace: "pd.DataFrame", time_range: tuple[float, float] | None) -> tuple[float, float]:
    if time_range is not None:
        low, high = (float(value) for value in time_range)
        if not low < high:
            raise UserError(f"time range {low:g} to {high:g} s is empty; its end must be after its start")
        return low, high
    if not len(trace):
        return 0.0, 1.0
    return float(trace["start_s"].min()), float(trace["end_s"].max())


def _within(table: "pd.DataFrame", low: float, high: float) -> "pd.DataFrame":
    return table[(table["end_s"] > low) & (table["start_s"] < high)].reset_index(drop=True)


def _halves(tasks: "pd.DataFrame") -> np.ndarray:
    """Which part of the row's height a task gets: tasks of one rank overlap only where F and B run together."""
    half = np.zeros(len(tasks), dtype=np.int64)
    upper = (tasks["kind"] == "F").to_numpy()
    start, end = tasks["start_s"].to_numpy(), tasks["end_s"].to_numpy()
    tolerance = 1e-9 * (end.max(initial=0.0) - start.min(initial=0.0))
    for own in tasks.groupby(["iteration", "rank"]).indices.values():
        own = own[np.argsort(start[own], kind="stable")]
        reach = np.maximum.accumulate(end[own])
        late = np.flatnonzero(start[own][1:] < reach[:-1] - tolerance) + 1  # begins before an earlier one ended
        together = np.zeros(len(own), dtype=bool)
        together[late] = True
        together[:-1] |= start[own][1:] < end[own][:-1] - tolerance
        half[own] = np.where(together, np.where(upper[own], 1, 2), 0)
    return half


def _beside(
    trace: "pd.DataFrame", tasks: "pd.DataFrame", row_of: dict[int, int]
) -> tuple[list[tuple[np.ndarray, np.ndarray]], "pd.DataFrame"]:
    """Each row's communication, and the table of what happens before the first and after the last task."""
    import pandas as pd

    what = map_column(trace["kind"], {"collective": 1, "p2p": 1, "optimizer": 2, "host": -1}, 0)
    what = np.where(map_column(trace["phase"], {"update": 1}, 0) & (what == 0), 2, what)
    rows = np.flatnonzero(what > 0)
    row = map_column(trace["rank"].iloc[rows], row_of)
    rows, row, what = rows[row >= 0], row[row >= 0], what[rows][row >= 0]
    start, end = trace["start_s"].to_numpy(float)[rows], trace["end_s"].to_numpy(float)[rows]
    comm, tail = [], []
    spans = tasks.groupby(["row", "iteration"]).agg(low=("start_s", "min"), high=("end_s", "max"))
    for index in range(len(row_of)):
        own = (row == index) & (what == 1)
        talk = union(start[own], end[own])
        own = (row == index) & (what == 2)
        step = union(start[own], end[own])
        inside = spans.loc[[index]].to_numpy() if index in spans.index.get_level_values(0) else np.zeros((0, 2))
        exposed = subtract(*subtract(*talk, *union(inside[:, 0], inside[:, 1])), *step)
        comm.append(subtract(*talk, *exposed))
        tail += [(index, a, b, "communication") for a, b in zip(*exposed)]
        tail += [(index, a, b, "optimizer") for a, b in zip(*step)]
    return comm, pd.DataFrame(tail, columns=["row", "start_s", "end_s", "what"])
