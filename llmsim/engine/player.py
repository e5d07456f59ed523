"""Plays a `Plan` on simpy: every kernel, ring step and transfer is an event. Only this package imports simpy.

`plan`: what is played. `state`: who waits for whom. `lane_player`: one lane and its alarm. `sharing`: who shares what,
at which speed.

Cost is the design: one scheduled event for an uncontended step, no process and no allocation per op. A lane owns one
reusable simpy event, its alarm; when rates change the alarm is moved, or found early when it rings and set again.
"""

from collections.abc import Callable

import numpy as np
import simpy

from llmsim.engine.activity import NEVER
from llmsim.engine.lane_player import LanePlayer
from llmsim.engine.plan import Lane, Part, Plan
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
    players = players_of(stage)
    events = run(stage, players, progress)
    blocked = [player for player in players if player.index < player.count]
    if blocked:
        raise SimulationError(_describe_blocked(blocked))
    return Played([player.rows() for player in players], events, stage.env.now)


def players_of(stage: Stage) -> list[LanePlayer]:
    """One for each lane of the plan; what goes on in the background has begun."""
    players = [LanePlayer(stage, lane) for lane in stage.plan.lanes]
    for part in stage.plan.background:
        _hold(stage, part)
    return players


def _hold(stage: Stage, part: Part) -> None:
    """An activity without an end: it takes its fair share of its resources, and nothing waits for it."""
    player = LanePlayer(stage, Lane(-1, "background", []))
    player.part, player.due, player.mark = part, NEVER, 0.0
    player.left_latency, player.left_seconds = 0.0, NEVER
    for resource, amount in part.demands:
        stage.users[resource][player] = amount
        stage.load[resource] += amount
        if stage.load[resource] > stage.limit[resource]:
            stage.crowd(resource)
            stage.begun[player] = None


def run(stage: Stage, players: list[LanePlayer], progress: Callable[[float], None] | None) -> int:
    """Play until nothing is left to happen: the number of events."""
    for player in players:
        player.next_item()
    events, step, total = 0, stage.env.step, sum(player.count for player in players)
    try:
        while True:
            for _ in range(50_000):
                step()
                events += 1
            if progress is not None:
                progress(sum(player.index for player in players) / max(total, 1))
    except simpy.core.EmptySchedule:
        return events


def _describe_blocked(blocked: list[LanePlayer]) -> str:
    shown = ", ".join(
        f"{player.lane.name} of class {player.lane.owner} at item {player.index} of {player.count}"
        for player in blocked[:8]
    )
    more = f" and {len(blocked) - 8} more" if len(blocked) > 8 else ""
    return f"nothing can go on at time {blocked[0].env.now:.6g} s; blocked: {shown}{more}"
