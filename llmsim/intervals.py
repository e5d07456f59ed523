"""The time ledger of one rank: every second between begin and end has exactly one label.

A rank's compute lane comes first: what runs in it owns its seconds. Seconds in which the lane stands still belong to
the first other activity, in a given order of precedence, that was going on meanwhile; the rest is idle.
"""

from collections.abc import Sequence

import numpy as np


def union(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint sorted intervals that cover the same points as the given ones."""
    if len(starts) == 0:
        return starts, ends
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    fresh = np.concatenate(([True], starts[1:] > ends[:-1]))
    last = np.concatenate((np.nonzero(fresh)[0][1:] - 1, [len(starts) - 1]))
    return starts[fresh], ends[last]


def covered(starts: np.ndarray, ends: np.ndarray, begins: np.ndarray, finishes: np.ndarray) -> float:
    """Seconds of the intervals [begins, finishes] that the disjoint sorted intervals [starts, ends] cover."""
    return float(covered_each(starts, ends, begins, finishes).sum())


def covered_each(starts: np.ndarray, ends: np.ndarray, begins: np.ndarray, finishes: np.ndarray) -> np.ndarray:
    """As `covered`, of each interval [begins, finishes]."""
    if len(starts) == 0 or len(begins) == 0:
        return np.zeros(len(begins))
    knots = np.column_stack((starts, ends)).ravel()
    amount = np.concatenate(([0.0], np.cumsum(np.column_stack((ends - starts, np.zeros_like(starts))).ravel())))[:-1]
    return np.interp(finishes, knots, amount) - np.interp(begins, knots, amount)


def gaps(starts: np.ndarray, ends: np.ndarray, begin: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """What sorted disjoint intervals leave free between begin and end."""
    opens = np.concatenate(([begin], ends))
    closes = np.concatenate((starts, [end]))
    free = closes > opens
    return opens[free], closes[free]


def attribute(
    begins: np.ndarray, finishes: np.ndarray, others: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[list[float], float]:
    """Share out the free intervals [begins, finishes] to `others` ((starts, ends), by precedence).

    Returns the seconds of each of `others`, and the seconds that none of them covers.
    """
    result, before = [], 0.0
    starts, ends = np.empty(0), np.empty(0)
    for other_starts, other_ends in others:
        starts, ends = union(np.concatenate((starts, other_starts)), np.concatenate((ends, other_ends)))
        total = covered(starts, ends, begins, finishes)
        result.append(total - before)
        before = total
    return result, float((finishes - begins).sum()) - before
