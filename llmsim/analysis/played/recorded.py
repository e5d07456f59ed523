"""A trace as the ledgers take it, so that a trace that was saved has the same ledger as the run that made it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from llmsim.analysis.columns import column_codes, map_column
from llmsim.analysis.played.recording import Lanes, Recording
from llmsim.program.passes.labels import CATEGORIES, STREAMS, Label, Tag
from llmsim.trace import inside_of, lane_of

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


@dataclass(frozen=True)
class Recorded:
    """A trace's recording; rank, number of ranks and stage of each of its classes."""

    recording: Recording
    rank: np.ndarray
    count: np.ndarray
    stage: np.ndarray


def recorded(trace: "pd.DataFrame") -> Recorded:
    """The recording of a trace (CONTRACT section 4). Rows of streams that are not known are left out."""
    if "lane" not in trace:
        trace = trace.assign(lane=[lane_of(str(stream)) for stream in trace["stream"]])
    if "inside" not in trace:
        trace = trace.assign(inside="")
    about = trace.drop_duplicates("rank").sort_values("rank")
    trace = trace[trace["stream"].astype(str).isin(STREAMS)]
    lane, names = column_codes(trace["lane"])
    sent, arrived = (map_column(trace["stream"], {name: 1}, 0) == 1 for name in ("pp_send", "pp_recv"))
    blocking = bool((sent & (map_column(trace["lane"], {"pp_send": 1}, 0) == 0)).any())
    names = [*names, "pp_send", "pp_recv"]
    lane = np.where(sent, len(names) - 2, np.where(arrived, len(names) - 1, lane))  # one that blocks its sender too
    label, labels = _distinct(trace, ("kind", "stream", "group", "phase", "inside"), _label)
    tag, tags = _distinct(trace, ("micro_batch", "chunk", "iteration"), lambda *values: Tag(*map(int, values)))
    rows = np.column_stack((label, tag, trace["start_s"], trace["end_s"])).astype(float)
    number = np.searchsorted(about["rank"].to_numpy(), trace["rank"].to_numpy())
    order = np.lexsort((rows[:, 3], rows[:, 2], lane, number))
    rows, lane, number = rows[order], lane[order], number[order]
    lanes: list[Lanes] = [{} for _ in range(len(about))]
    cuts = np.flatnonzero((np.diff(lane, prepend=-1) != 0) | (np.diff(number, prepend=-1) != 0))
    for low, high in pairwise([*cuts.tolist(), len(rows)]):
        lanes[number[low]][names[lane[low]]] = rows[low:high]
    receipts = [by_name.pop("pp_recv", np.empty((0, 4))) for by_name in lanes]
    ranks, count, stage = (about[name].to_numpy() for name in ("rank", "ranks", "stage"))
    return Recorded(Recording(labels, tags, lanes, receipts, blocking), ranks, count.astype(float), stage)


def _distinct(trace: "pd.DataFrame", columns: Sequence[str], make: Callable[..., T]) -> tuple[np.ndarray, list[T]]:
    """(number of each row's values in these columns, what `make` makes of the values of each number)."""
    key, coded = np.zeros(len(trace), dtype=np.int64), []
    for name in columns:
        codes, values = column_codes(trace[name])
        key = key * max(1, len(values)) + codes
        coded.append((codes, values))
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    return number, [make(*(values[codes[row]] for codes, values in coded)) for row in first.tolist()]


def _label(kind: Any, stream: Any, group: Any, phase: Any, inside: Any) -> Label:
    shares = inside_of(str(inside))
    every = tuple(shares.get(name, 0.0) for name in (*CATEGORIES, "idle")) if shares else None
    return Label("", str(kind), str(stream), str(phase), group=str(group), shares=every)
