"""Where the time of an iteration goes, from a trace alone: one that was saved, or came from elsewhere."""

from typing import TYPE_CHECKING

import numpy as np

from llmsim.analysis.bubbles import pipeline_tasks
from llmsim.analysis.intervals import subtract, union

if TYPE_CHECKING:
    import pandas as pd

# In order of precedence: a second in which several go on belongs to the first of them.
_STREAMS = {
    "exposed_tp": ("tp",),
    "exposed_cp": ("cp",),
    "exposed_ep": ("ep",),
    "exposed_pp": ("pp_send", "pp_recv"),
    "exposed_dp": ("dp",),
    "offload": ("offload",),
    "data": ("host",),
}


def trace_breakdown(trace: "pd.DataFrame") -> dict[str, float]:
    """Seconds by part of the last iteration, mean over ranks, adding up to its length (CONTRACT section 3).

    In a `block` trace the communication inside a pass is part of its one row, and counts as compute.
    """
    trace = trace[trace["iteration"] == trace["iteration"].max()]
    low, high = (float(trace["start_s"].min()), float(trace["end_s"].max())) if len(trace) else (0.0, 0.0)
    tasks = pipeline_tasks(trace)
    window = (tasks["start_s"].min(), tasks["end_s"].max()) if len(tasks) else (low, low)
    total = dict.fromkeys(("compute", *_STREAMS, "bubble", "optimizer", "other"), 0.0)
    weight = 0.0
    for _, own in trace.groupby("rank", observed=True):
        count = float(own["ranks"].iloc[0])
        weight += count
        for name, seconds in _of_rank(own, low, high, window).items():
            total[name] += count * seconds
    return {name: seconds / weight if weight else 0.0 for name, seconds in total.items()}


def _of_rank(own: "pd.DataFrame", low: float, high: float, window: tuple[float, float]) -> dict[str, float]:
    kind, stream = own["kind"].to_numpy(dtype=object), own["stream"].to_numpy(dtype=object)
    start, end = own["start_s"].to_numpy(float), own["end_s"].to_numpy(float)
    rows = {"compute": kind == "compute", "optimizer": kind == "optimizer"}
    rows |= {name: np.isin(stream, streams) & ~np.isin(kind, list(rows)) for name, streams in _STREAMS.items()}
    free = (np.array([low]), np.array([high]))
    seconds = {}
    for name, chosen in rows.items():
        left = subtract(*free, *union(start[chosen], end[chosen]))
        seconds[name] = _length(free) - _length(left)
        free = left
    outside = _length(subtract(*free, np.array([window[0]]), np.array([window[1]])))
    return seconds | {"bubble": _length(free) - outside, "other": outside}


def _length(intervals: tuple[np.ndarray, np.ndarray]) -> float:
    return float((intervals[1] - intervals[0]).sum())
