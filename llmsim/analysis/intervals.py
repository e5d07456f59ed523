"""Intervals of time as arrays: unions of busy periods and how much of each time bin they cover."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def union(start: Floats, end: Floats) -> tuple[Floats, Floats]:
    """Disjoint sorted (start, end) arrays that cover the same time; touching intervals become one.

    Empty intervals (end <= start) cover nothing and vanish. Exact: only comparisons, no arithmetic on times.
    """
    keep = end > start
    start, end = start[keep], end[keep]
    if not len(start):
        return start, end
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    first = np.flatnonzero(np.concatenate(([True], start[1:] > reach[:-1])))
    return start[first], reach[np.append(first[1:] - 1, len(reach) - 1)]


def gaps(start: Floats, end: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    """What disjoint sorted intervals leave free between `low` and `high`."""
    free_start = np.concatenate(([low], np.clip(end, low, high)))
    free_end = np.concatenate((np.clip(start, low, high), [high]))
    keep = free_end > free_start
    return free_start[keep], free_end[keep]


def subtract(start: Floats, end: Floats, other_start: Floats, other_end: Floats) -> tuple[Floats, Floats]:
    """What disjoint sorted intervals have outside of other disjoint sorted intervals."""
    if not len(start):
        return start, end
    low, high = start[0], end[-1]
    free = union(
        *(
            np.concatenate(pair)
            for pair in zip(
                gaps(start, end, low, high),
                (np.maximum(other_start, low), np.minimum(other_end, high)),
            )
        )
    )
    return gaps(*free, low, high)


def coverage(start: Floats, end: Floats, edges: Floats) -> Floats:
    """Seconds of each bin [edges[i], edges[i+1]) that disjoint sorted intervals cover; shape (len(edges) - 1,)."""
    if not len(start):
        return np.zeros(len(edges) - 1)
    covered = np.concatenate(([0.0], np.cumsum(end - start)))
    times = np.column_stack((start, end)).ravel()
    levels = np.column_stack((covered[:-1], covered[1:])).ravel()
    return np.diff(np.interp(edges, times, levels))
