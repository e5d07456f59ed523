"""The critical path: the chain of ops, each waiting for the one before, that makes the iteration as long as it is."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from llmsim.trace import inside_of

if TYPE_CHECKING:
    import pandas as pd

_CLOSE = 1e-9  # relative: ends and starts that the engine made equal


def critical_path(trace: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of the trace from the first op of the path to the last, with `wait_s` before each.

    Going back from the op that ends last, the predecessor is the op of the same rank that ended last before this one
    began; of communication it is the op, on whichever rank, that ended when this one began. `wait_s` is time that no op
    explains (launch gaps).
    """
    timed = trace[trace["end_s"] > trace["start_s"]]
    start, end, rank = (timed[name].to_numpy() for name in ("start_s", "end_s", "rank"))
    talks = timed["kind"].isin(("collective", "p2p")).to_numpy()
    order = np.argsort(end, kind="stable")
    whole = order, end[order]
    own = {number: tuple(part[rank[order] == number] for part in whole) for number in np.unique(rank)}
    near = _CLOSE * (end.max() if len(end) else 0.0)
    path, waits = [], []
    current = int(order[-1]) if len(order) else None
    while current is not None:
        path.append(current)
        found = _before(start[current], *own[rank[current]], start, near)
        late = found is None or start[current] - end[found] > near
        if late and talks[current]:
            other = _before(start[current], *whole, start, near)
            if other is not None and start[current] - end[other] <= near:
                found = other
        waits.append(max(0.0, start[current] - (end[found] if found is not None else 0.0)))
        current = found
    result = timed.iloc[path[::-1]].reset_index(drop=True)
    result["wait_s"] = waits[::-1]
    return result


def _before(time: float, order: np.ndarray, ends: np.ndarray, start: np.ndarray, near: float) -> int | None:
    """Of the ops in `order`, which have these `ends`, the last that has ended by `time`, None where there is none."""
    last = int(np.searchsorted(ends, time + near, side="right")) - 1
    # An op shorter than the tolerance may seem to precede itself; time must go back.
    while last >= 0 and start[order[last]] >= time:
        last -= 1
    return int(order[last]) if last >= 0 else None


def on_path(path: "pd.DataFrame") -> dict[str, float]:
    """Seconds of the path by what is done in them, the most first; a pass in one row is split into what is inside."""
    kind, group, phase = (path[name].astype(str) for name in ("kind", "group", "phase"))
    talking = kind.isin(("collective", "p2p"))
    label = np.where(talking, group + " communication", np.where(kind == "compute", phase + " computation", kind))
    seconds = (path["end_s"] - path["start_s"]).to_numpy()
    found: dict[str, float] = {}
    for name, inside, time in zip(label, path["inside"].astype(str), seconds):
        shares = inside_of(inside)
        parts = _inside(shares, name) if shares else {name: 1.0}
        for part, share in parts.items():
            found[part] = found.get(part, 0.0) + share * time
    result = dict(sorted(found.items(), key=lambda entry: -entry[1]))
    if (gaps := float(path["wait_s"].sum())) > 0:
        result["gaps"] = result.get("gaps", 0.0) + gaps
    return result


def _inside(shares: Mapping[str, float], name: str) -> dict[str, float]:
    """The shares of a pass by the names that its kernels have on a path; `name`: its computing."""
    names = {"compute": name, "launch": "host", "idle": "gaps"}
    names |= {f"exposed_{group}": f"{group} communication" for group in ("tp", "cp", "ep", "pp", "dp")}
    return {names.get(part, part): share for part, share in shares.items()}
