"""Pipeline bubbles: from the trace's ops to pipeline tasks, and from tasks to who waits how long.

A *task* is one forward, backward or weight-gradient pass of one micro-batch through one chunk: a single row of a
`block` trace, hundreds of kernels and collectives of a `kernel` trace. What happens between its first and its last
row is the task's own time (tensor-parallel communication included); what happens between tasks is waiting.
"""

from typing import TYPE_CHECKING

import numpy as np

from llmsim.analysis.columns import map_column
from llmsim.analysis.played.recorded import recorded
from llmsim.analysis.played.time_ledger import account

if TYPE_CHECKING:
    import pandas as pd

# Work on these streams runs beside the pipeline: it never makes a task longer, though waiting for it may delay one.
SIDE_STREAMS = frozenset({"pp_send", "pp_recv", "dp", "offload", "prefetch", "cpu", "host", "launch"})
_KIND_OF_PHASE = {"forward": 0, "backward": 1, "recompute": 1, "weight": 2}
_KINDS = np.array(["F", "B", "W", "BW"], dtype=object)
_FUSED = 3


def pipeline_tasks(trace: "pd.DataFrame") -> "pd.DataFrame":
    """The pipeline tasks of a trace (CONTRACT section 4), sorted by iteration, rank and start.

    Columns: `rank`, `ranks`, `stage`, `kind` (`F`; `B` and `W` when the backward is split, else `BW`), `chunk`,
    `micro_batch`, `start_s`, `end_s`, `iteration` and `recompute_s`, the seconds of recomputation inside a backward.
    A weight gradient that begins before its input gradient has ended is part of a fused backward.
    """
    import pandas as pd

    kind = map_column(trace["phase"], _KIND_OF_PHASE)
    beside = map_column(trace["stream"], dict.fromkeys(SIDE_STREAMS, 1), 0)
    rows = np.flatnonzero((kind >= 0) & (beside == 0) & (trace["micro_batch"].to_numpy() >= 0))
    kind = kind[rows]
    start, end = trace["start_s"].to_numpy(float)[rows], trace["end_s"].to_numpy(float)[rows]
    key = np.zeros(len(rows), dtype=np.int64)
    for name in ("iteration", "rank", "chunk", "micro_batch"):
        values = trace[name].to_numpy(np.int64)[rows]
        low = values.min(initial=0)
        key = key * (values.max(initial=0) - low + 1) + (values - low)
    codes, keys = pd.factorize(key * 3 + kind)
    first = np.full(len(keys), np.inf)
    last = np.full(len(keys), -np.inf)
    np.minimum.at(first, codes, start)
    np.maximum.at(last, codes, end)
    recomputed = map_column(trace["phase"], {"recompute": 1}, 0)[rows] == 1
    recompute = np.bincount(codes[recomputed], (end - start)[recomputed], minlength=len(keys))
    example = np.empty(len(keys), dtype=np.int64)
    example[codes[::-1]] = rows[::-1]  # the first row of each task: numpy keeps the last of repeated assignments
    kinds, keep = _fuse(keys, first, last)
    picked = trace[["rank", "ranks", "stage", "chunk", "micro_batch", "iteration"]].iloc[example[keep]]
    tasks = pd.DataFrame(
        {
            "rank": picked["rank"].to_numpy(),
            "ranks": picked["ranks"].to_numpy(),
            "stage": picked["stage"].to_numpy(),
            "kind": _KINDS[kinds[keep]],
            "chunk": picked["chunk"].to_numpy(),
            "micro_batch": picked["micro_batch"].to_numpy(),
            "start_s": first[keep],
            "end_s": last[keep],
            "iteration": picked["iteration"].to_numpy(),
            "recompute_s": np.minimum(recompute, last - first)[keep],
        }
    )
    return tasks.sort_values(["iteration", "rank", "start_s", "end_s"], kind="stable", ignore_index=True)


def _fuse(keys: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kind of each task and which tasks stay. Fused backwards take in their W (`first`, `last` change in place)."""
    kinds = keys % 3
    backward, weight = np.flatnonzero(kinds == 1), np.flatnonzero(kinds == 2)
    backward = backward[np.argsort(keys[backward])]
    place = np.searchsorted(keys[backward], keys[weight] - 1)
    partner = backward[np.minimum(place, len(backward) - 1)] if len(backward) else weight
    paired = keys[partner] == keys[weight] - 1
    weight, partner = weight[paired], partner[paired]
    overlaps = first[weight] < last[partner]
    kinds[backward] = _FUSED
    kinds[partner[~overlaps]] = 1
    into, gone = partner[overlaps], weight[overlaps]
    first[into] = np.minimum(first[into], first[gone])
    last[into] = np.maximum(last[into], last[gone])
    keep = np.ones(len(keys), dtype=bool)
    keep[gone] = False
    return kinds, keep


def bubble_table(trace: "pd.DataFrame") -> "pd.DataFrame":
    """Who waits how long: one row per iteration and stage (mean over its ranks, weighted by how many they stand for).

    The window runs from the first to the last pipeline work of the iteration on any stage, the same for all stages.
    `busy_s` is the part of it in which passes are under way, `wait_s` the rest, both as the run's own metrics count;
    `bubble_fraction` wait over window, `bubble_over_ideal` wait over busy, which is (p - 1) / m for GPipe and 1F1B on
    equal stages without communication.
    `peak_in_flight`: most (chunk, micro-batch) pairs alive at once, from the start of F to the end of W (of BW when
    not split); `peak_until_backward` the same to the end of B.
    """
    return rank_bubbles(trace, pipeline_tasks(trace)).pipe(_mean_by_stage)


def bubble_summary(trace: "pd.DataFrame") -> dict[str, float]:
    """`bubble_fraction` and `bubble_over_ideal` (CONTRACT section 3) of the last iteration, 0 with no pipeline."""
    table = bubble_table(trace)
    if table.empty:
        return {"bubble_fraction": 0.0, "bubble_over_ideal": 0.0}
    table = table[table["iteration"] == table["iteration"].max()]
    busy = float(table["busy_s"].mean())
    return {
        "bubble_fraction": float(table["bubble_fraction"].mean()),
        "bubble_over_ideal": float(table["wait_s"].mean()) / busy if busy else 0.0,
    }


def rank_bubbles(trace: "pd.DataFrame", tasks: "pd.DataFrame") -> "pd.DataFrame":
    """The columns of `bubble_table` for each iteration and representative rank. tasks: `pipeline_tasks(trace)`."""
    import pandas as pd

    rows, found = [], recorded(trace)
    place = {rank: number for number, rank in enumerate(found.rank.tolist())}
    for iteration, of_iteration in tasks.groupby("iteration", sort=True):
        accounts = account(found.recording, int(iteration))
        low, high = accounts.window
        for rank, own in of_iteration.groupby("rank", sort=True):
            busy, wait = (float(values[place[rank]]) for values in (accounts.busy, accounts.waiting))
            rows.append(
                (
                    iteration,
                    own["stage"].iloc[0],
                    rank,
                    own["ranks"].iloc[0],
                    busy,
                    wait,
                    high - low,
                    wait / (high - low) if high > low else 0.0,
                    wait / busy if busy else 0.0,
                    peak_in_flight(own),
                    peak_in_flight(own, until="backward"),
                )
            )
    columns = [
        "iteration",
        "stage",
        "rank",
        "ranks",
        "busy_s",
        "wait_s",
        "window_s",
        "bubble_fraction",
        "bubble_over_ideal",
        "peak_in_flight",
        "peak_until_backward",
    ]
    return pd.DataFrame(rows, columns=columns)


def _mean_by_stage(table: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    rows = []
    for (iteration, stage), own in table.groupby(["iteration", "stage"], sort=True):
        weight = own["ranks"].to_numpy(float)
        busy, wait = (float(np.average(own[name], weights=weight)) for name in ("busy_s", "wait_s"))
        window = float(own["window_s"].iloc[0])
        rows.append(
            (
                iteration,
                stage,
                int(weight.sum()),
                busy,
                wait,
                window,
                wait / window if window else 0.0,
                wait / busy if busy else 0.0,
                int(own["peak_in_flight"].max()),
                int(own["peak_until_backward"].max()),
            )
        )
    columns = [
        "iteration",
        "stage",
        "ranks",
        "busy_s",
        "wait_s",
        "window_s",
        "bubble_fraction",
        "bubble_over_ideal",
        "peak_in_flight",
        "peak_until_backward",
    ]
    return pd.DataFrame(rows, columns=columns)


def peak_in_flight(tasks: "pd.DataFrame", until: str = "weight") -> int:
    """Most (chunk, micro-batch) pairs alive at once on one rank, from F's start to the end of W (or of B).

    In a block that runs F of one micro-batch with B of another the new one counts before the old one is released.
    """
    kind = tasks["kind"].to_numpy()
    released = np.isin(kind, ["W", "BW"] if until == "weight" else ["B", "BW"])
    born = tasks["start_s"].to_numpy()[kind == "F"]
    freed = tasks["end_s"].to_numpy()[released]
    time = np.concatenate((freed, born))  # the stable sort puts a release before a birth at the same instant
    change = np.concatenate((np.full(len(freed), -1), np.ones(len(born), dtype=int)))
    alive = np.cumsum(change[np.argsort(time, kind="stable")])
    return int(alive.max(initial=0))
