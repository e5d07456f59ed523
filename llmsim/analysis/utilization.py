"""Utilisation over time: the share of each time bin a stage computes, communicates in the open, or idles."""

from typing import TYPE_CHECKING

import numpy as np

from llmsim.analysis.bubbles import column_codes, map_column
from llmsim.analysis.intervals import coverage, subtract, union, union_by

if TYPE_CHECKING:
    import pandas as pd

_COMPUTING, _COMMUNICATING = 0, 1
_ACTIVITY = {
    "compute": _COMPUTING,
    "optimizer": _COMPUTING,
    "collective": _COMMUNICATING,
    "p2p": _COMMUNICATING,
    "offload": _COMMUNICATING,
}


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

    `communicating` is exposed communication: no kernel of the rank runs meanwhile. A stage is the mean of its
    representative ranks, weighted by how many ranks each stands for. A row that stands for a whole pass computes and
    communicates in the shares that its column `exposed` gives, evenly over its time.
    """
    import pandas as pd

    edges = time_bins(trace, bins, time_range)
    activity = map_column(trace["kind"], _ACTIVITY)
    start, end = trace["start_s"].to_numpy(float), trace["end_s"].to_numpy(float)
    within = trace["exposed"].to_numpy(float) if "exposed" in trace else np.zeros(len(trace))
    code, ranks = column_codes(trace["rank"])
    none = (np.zeros(0), np.zeros(0))
    of_activity = {
        kind: union_by(code[activity == kind], start[activity == kind], end[activity == kind])
        for kind in (_COMPUTING, _COMMUNICATING)
    }
    about = trace.drop_duplicates("rank").set_index("rank")
    total: dict[int, np.ndarray] = {}
    weight: dict[int, float] = {}
    for index, rank in enumerate(ranks):
        computing = of_activity[_COMPUTING].get(index, none)
        exposed = subtract(*of_activity[_COMMUNICATING].get(index, none), *computing)
        share = np.stack([coverage(*computing, edges), coverage(*exposed, edges)])
        inside = (code == index) & (activity == _COMPUTING)
        open_ = _mean_coverage(start[inside], end[inside], within[inside], edges)
        share = np.clip(share + np.stack([-open_, open_]), 0.0, None) / np.diff(edges)
        stage, count = int(about.at[rank, "stage"]), float(about.at[rank, "ranks"])
        total[stage] = total.get(stage, 0.0) + count * share
        weight[stage] = weight.get(stage, 0.0) + count
    parts = []
    for stage in sorted(total):
        computing, communicating = np.clip(total[stage] / weight[stage], 0.0, 1.0)
        idle = np.clip(1.0 - computing - communicating, 0.0, 1.0)
        columns = {"stage": stage, "start_s": edges[:-1], "end_s": edges[1:], "computing": computing}
        parts.append(pd.DataFrame({**columns, "communicating": communicating, "idle": idle}))
    columns = ["stage", "start_s", "end_s", "computing", "communicating", "idle"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


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
