"""Plays a `Plan` on simpy: every kernel, ring step and transfer is an event. Only this package imports simpy.

Here: who waits for whom, and who shares what at which speed. `lane_player`: one lane and its alarm.

Cost is the design: one scheduled event for an uncontended step, no process and no allocation per op. A lane owns one
reusable simpy event, its alarm; when rates change the alarm is moved, or found early when it rings and set again.
"""

from collections.abc import Callable

import numpy as np

from llmsim.engine.lane_player import LanePlayer
from llmsim.engine.plan import Plan
from llmsim.engine.state import Stage
from llmsim.errors import SimulationError


class Played:
    """What came out: `rows[lane]` is an array (ops, 4) of label, tag, start (s), end (s); `events` were played."""

    __slots__ = ("end", "events", "rows")

    def __init__(self, rows: list[np.ndarray], events: int, end: float) -> None:
        self.rows, self.events, self.end = rows, events, end


def play(plan: Plan, *, steps: bool = True, progress: Callable[[float], None] | None = None) -> Played:
    """Run `plan` to its end.

    steps: each step of a part is an event of its own (`detail: kernel`); else equal steps are merged into one.
    progress: called now and then with the share of items done.
    Raises `SimulationError` when lanes are left blocked, naming the first blocked op of each.
    """
    stage = Stage(plan, steps)
    events = stage.run(progress)
    blocked = [player for player in stage.players if player.index < player.count]
    if blocked:
        raise SimulationError(_describe_blocked(blocked))
    return Played([player.rows() for player in stage.players], events, stage.env.now)


def _describe_blocked(blocked: list[LanePlayer]) -> str:
    shown = ", ".join(
        f"{player.lane.name} of class {player.lane.owner} at item {player.index} of {player.count}"
        for player in blocked[:8]
    )
    more = f" and {len(blocked) - 8} more" if len(blocked) > 8 else ""
    return f"nothing can go on at time {blocked[0].env.now:.6g} s; blocked: {shown}{more}"
