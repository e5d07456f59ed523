"""Whose a GPU's seconds are when it does several things at once: computing comes first, then what it waits for.

Two lanes may compute at once (a forward beside a backward); they share the seconds in which both do.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from llmsim.intervals import attribute, covered, covered_each, gaps, union
from llmsim.program.passes.labels import CATEGORIES

COMPUTING_LANES = ("compute", "beside")
WAITED_FOR = ("exposed_tp", "exposed_cp", "exposed_ep", "exposed_pp", "exposed_dp", "offload", "data", "launch")
_COMPUTING = tuple(CATEGORIES.index(name) for name in ("compute", "optimizer"))

Intervals = tuple[np.ndarray, np.ndarray]  # starts and ends (s)


def is_computing(rows: np.ndarray, category: np.ndarray) -> np.ndarray:
    """bool[ops]: which of the rows (label, tag, start, end) compute; category: of each label."""
    return np.isin(category[rows[:, 0].astype(int)], _COMPUTING)


def computing_lanes(lanes: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The rows of those lanes of a class that may compute, at least one."""
    return [lanes[name] for name in COMPUTING_LANES if name in lanes] or [np.empty((0, 4))]


def owned_seconds(lanes: Sequence[np.ndarray], begin: float, end: float) -> tuple[np.ndarray, np.ndarray, Intervals]:
    """Of rows that compute, by lane: (rows, their seconds between begin and end, and what they leave free).

    Seconds in which several lanes compute are shared equally, so that all of them add up to what is not free.
    """
    spans = [union(*clipped(rows[:, 2], rows[:, 3], begin, end)) for rows in lanes]
    seconds = []
    for lane, rows in enumerate(lanes):
        starts, ends = np.clip(rows[:, 2], begin, end), np.clip(rows[:, 3], begin, end)
        others = [span for i, span in enumerate(spans) if i != lane]
        shared = sum((covered_each(*span, starts, ends) for span in others), np.zeros(len(rows)))
        seconds.append(ends - starts - shared / 2)
    busy = union(*(np.concatenate([span[i] for span in spans]) for i in (0, 1)))
    return np.concatenate(lanes), np.concatenate(seconds), gaps(*busy, begin, end)


def pass_seconds(lanes: dict[str, np.ndarray], category: np.ndarray, begin: float, end: float) -> np.ndarray:
    """float[categories + 1]: whose the seconds of passes played alone are, the last being those of nothing at all."""
    computing = [rows[is_computing(rows, category)] for name, rows in lanes.items() if name in COMPUTING_LANES]
    rows, owned, free = owned_seconds(computing, begin, end)
    seconds = np.zeros(len(CATEGORIES) + 1)
    np.add.at(seconds, category[rows[:, 0].astype(int)], owned)
    every = np.concatenate(list(lanes.values()))
    kinds = category[every[:, 0].astype(int)]
    others = [every[kinds == CATEGORIES.index(name)] for name in WAITED_FOR]
    exposed, idle = attribute(*free, [(part[:, 2], part[:, 3]) for part in others])
    for name, amount in zip(WAITED_FOR, exposed):
        seconds[CATEGORIES.index(name)] += max(amount, 0.0)
    seconds[-1] = max(idle, 0.0)
    return seconds


def hidden_seconds(
    lanes: dict[str, np.ndarray], category: np.ndarray, groups: np.ndarray
) -> dict[str, tuple[float, float]]:
    """By group: its seconds of communication beside computing, and in all. category, groups: of each label.

    What a computing lane says itself hides under the other computing lane only.
    """

    def computing(*names: str) -> Intervals:
        rows = [lanes[name][is_computing(lanes[name], category)] for name in names if name in lanes]
        joined = np.concatenate([*rows, np.empty((0, 4))])
        return union(joined[:, 2], joined[:, 3])

    anywhere = computing(*COMPUTING_LANES)
    across = {"compute": computing("beside"), "beside": computing("compute")}
    found: dict[str, tuple[float, float]] = {}
    for lane, rows in lanes.items():
        group_of = groups[rows[:, 0].astype(int)]
        for group in np.unique(group_of).tolist():
            if group:
                mine = rows[group_of == group]
                name = "pp" if group.startswith("pp_") else group
                beside, total = found.get(name, (0.0, 0.0))
                beside += covered(*across.get(lane, anywhere), mine[:, 2], mine[:, 3])
                found[name] = (beside, total + float((mine[:, 3] - mine[:, 2]).sum()))
    return found


def clipped(starts: np.ndarray, ends: np.ndarray, begin: float, end: float) -> Intervals:
    """The parts of intervals that lie between begin and end."""
    starts, ends = np.clip(starts, begin, end), np.clip(ends, begin, end)
    return starts[ends > starts], ends[ends > starts]
