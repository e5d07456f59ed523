"""Utilisation over time: the share of each time bin a stage computes, communicates in the open, or idles."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmsim.analysis.intervals import coverage, subtract, union
from llmsim.analysis.played.recorded import recorded
from llmsim.analysis.played.recording import Recording
from llmsim.analysis.played.time_ledger import waited_for
from llmsim.program.passes.precedence import computing_lanes, is_computing

if TYPE_CHECKING:
    import pandas as pd

_COMPUTING = ("compute", "optimizer")
_COMMUNICATING = ("exposed_tp", "exposed_cp", "exposed_ep", "exposed_pp", "exposed_dp", "offload")


def time_bins(trace: "pd.DataFrame", bins: int, time_range: tuple[float, float] | None = None) -> np.ndarray:
    """Edges (s) of `bins` equal bins over the trace or over `time_range`; shape (bins + 1,)."""
    if time_range is None:
        whole = len(trace) > 0
        low, high = (trace["start_s"].min(), trace["end_s"].max()) if whole else (0.0, 1.0)
    else:
        low, high = time_range
    return np.linspace(float(low), float(high), bins + 1)


def stage_utilization(
    trace: "pd.DataFrame", bins: int = 300, time_range: tuple[float, float] | None = None
) -> "pd.DataFrame":
    """One row per stage and time bin: `stage, start_s, end_s, computing, communicating, idle`, shares adding up to 1.

    They are the ledger's: over an iteration `computing` is its compute and optimizer, `communicating` its exposed
    communication and offloading, waits for others to join it included, and `idle` the rest: bubbles, waiting for data
    and for the host. A stage is the mean of its ranks. A pass in one row is spent evenly on what is inside it.
    """
    import pandas as pd

    edges = time_bins(trace, bins, time_range)
    found = recorded(trace)
    total: dict[int, np.ndarray] = {}
    weight: dict[int, float] = {}
    iterations = [found.recording.of_iteration(number) for number in found.recording.iterations]
    for number, (stage, count) in enumerate(zip(found.stage.tolist(), found.count.tolist())):
        seconds = _seconds([(iteration, number) for iteration in iterations], edges)
        total[stage] = total.get(stage, 0.0) + count * seconds / np.diff(edges)
        weight[stage] = weight.get(stage, 0.0) + count
    parts = []
    for stage in sorted(total):
        computing, communicating = np.clip(total[stage] / weight[stage], 0.0, 1.0)
        idle = np.clip(1.0 - computing - communicating, 0.0, 1.0)
        shares = {"computing": computing, "communicating": communicating, "idle": idle}
        parts.append(pd.DataFrame({"stage": stage, "start_s": edges[:-1], "end_s": edges[1:], **shares}))
    columns = ["stage", "start_s", "end_s", "computing", "communicating", "idle"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _seconds(classes: Sequence[tuple[Recording, int]], edges: np.ndarray) -> np.ndarray:
    """float[2, bins]: seconds of computing and of communicating. classes: a class in each iteration."""
    lanes, waits = [], []
    for recording, number in classes:
        own = np.concatenate(computing_lanes(recording.lanes[number]))
        lanes.append(own[is_computing(own, recording.category)])
        waits.append(waited_for(recording, number))
    rows = np.concatenate(lanes)
    label, start, end = rows[:, 0].astype(int), rows[:, 2], rows[:, 3]
    spent = np.array([_spent(each.inside) for each in classes[0][0].labels]).reshape(-1, 2)[label]
    computing, communicating = (_mean_coverage(start, end, spent[:, part], edges) for part in (0, 1))
    taken = union(start, end)
    for same in zip(*waits):  # the same part of the breakdown in each iteration
        when = union(*(np.concatenate(part) for part in zip(*(when for _, when in same))))
        if same[0][0] in _COMMUNICATING:
            communicating = communicating + coverage(*subtract(*when, *taken), edges)
        taken = union(*(np.concatenate(part) for part in zip(taken, when)))
    return np.stack((computing, communicating))


def _spent(inside: Mapping[str, float]) -> tuple[float, float]:
    """Shares of computing and of communicating in an op; inside: `Label.inside`."""
    if not inside:
        return 1.0, 0.0
    return sum(inside.get(name, 0.0) for name in _COMPUTING), sum(inside.get(name, 0.0) for name in _COMMUNICATING)


def _mean_coverage(start: np.ndarray, end: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Seconds in each bin, each weighed by the mean weight of the intervals that are going on."""
    if not weight.any():
        return np.zeros(len(edges) - 1)
    times, change = np.concatenate((start, end)), np.concatenate((weight, -weight))
    order = np.argsort(times, kind="stable")
    number = np.cumsum(np.concatenate((np.ones(len(start)), -np.ones(len(end))))[order])
    mean = np.cumsum(change[order]) / np.maximum(number, 1)
    knots = times[order]
    amount = np.concatenate(([0.0], np.cumsum(np.diff(knots) * mean[:-1])))
    return np.diff(np.interp(edges, knots, amount))


def stream_utilization(trace: "pd.DataFrame") -> "pd.DataFrame":
    """How much of the trace's time each stream of each rank is busy: `rank, ranks, stage, stream, busy_s, share`."""
    import pandas as pd

    rows = []
    span = float(trace["end_s"].max() - trace["start_s"].min()) if len(trace) else 0.0
    for (stage, rank, stream), own in trace.groupby(["stage", "rank", "stream"], sort=True, observed=True):
        start, end = union(own["start_s"].to_numpy(float), own["end_s"].to_numpy(float))
        busy = float((end - start).sum())
        rows.append((rank, own["ranks"].iloc[0], stage, stream, busy, busy / span if span else 0.0))
    return pd.DataFrame(rows, columns=["rank", "ranks", "stage", "stream", "busy_s", "share"])
