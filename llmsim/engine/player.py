"""Plays a `Plan` on simpy: every kernel, ring step and transfer is an event. Only this package imports simpy.

Here: who waits for whom, and who shares what at which speed. `lane_player`: one lane and its alarm.

Cost is the design: one scheduled event for an uncontended step, no process and no allocation per op. A lane owns one
reusable simpy event, its alarm; when rates change the alarm is moved, or found early when it rings and set again.
"""

from collections.abc import Callable

import numpy as np
import simpy

from llmsim.engine.fairness import max_min_speeds
from llmsim.engine.lane_player import NEVER, LanePlayer, new_alarm
from llmsim.engine.plan import Lane, Part, Plan
from llmsim.errors import SimulationError

_SLACK = 1.0 + 1e-7  # a resource counts as oversubscribed beyond this, so that rounding does not
_AFTER_ALL_ELSE = 9  # simpy's events have priorities 0 and 1


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


class Stage:
    """The mutable state of one run: loads of the resources, signals fired, arrivals at meetings."""

    def __init__(self, plan: Plan, steps: bool) -> None:
        self.env = simpy.Environment()
        self.plan = plan
        self.steps = steps
        self.capacity = list(plan.capacities)
        self.limit = [capacity * _SLACK for capacity in self.capacity]
        self.load = [0.0] * len(self.capacity)
        self.fired = bytearray(plan.signals)
        self.waiting: dict[int, list[LanePlayer]] = {}
        self.arrived: list[list[LanePlayer]] = [[] for _ in plan.meetings]
        self.players = [LanePlayer(self, lane) for lane in plan.lanes]
        self.users: list[list[LanePlayer]] = [[] for _ in self.capacity]
        self.driven: dict[int, dict[LanePlayer, None]] = {}  # by resource: players of meetings that use it now
        self.crowded: dict[int, None] = {}  # resources to share out anew at this instant
        for player in self.players:
            for resource in sorted(_used_alone(player.lane)):
                self.users[resource].append(player)
        for part in plan.background:
            self._hold(part)
        for change in plan.changes:
            event = self.env.timeout(change.time)
            event.callbacks.append(lambda _, change=change: self._change(change.resource, change.capacity))

    def _hold(self, part: Part) -> None:
        """An activity without an end: it takes its fair share of its resources, and nothing waits for it."""
        player = LanePlayer(self, Lane(-1, "background", []))
        player.part, player.due, player.mark = part, NEVER, 0.0
        player.left_latency, player.left_seconds = 0.0, NEVER
        for resource, amount in part.demands:
            self.users[resource].append(player)
            self.load[resource] += amount
            if self.load[resource] > self.limit[resource]:
                self.crowd(resource)

    def run(self, progress: Callable[[float], None] | None) -> int:
        for player in self.players:
            player.next_item()
        events, step, total = 0, self.env.step, sum(player.count for player in self.players)
        try:
            while True:
                for _ in range(50_000):
                    step()
                    events += 1
                if progress is not None:
                    progress(sum(player.index for player in self.players) / max(total, 1))
        except simpy.core.EmptySchedule:
            return events

    def fire(self, signal: int) -> None:
        self.fired[signal] = 1
        waiting = self.waiting.pop(signal, None)
        if waiting is not None:
            for player in waiting:
                player.next_item()

    def fire_later(self, signal: int, delay: float) -> None:
        if delay <= 0.0:
            self.fire(signal)
        else:
            self.env.timeout(delay).callbacks.append(lambda _: self.fire(signal))

    def _change(self, resource: int, capacity: float) -> None:
        self.capacity[resource] = capacity
        self.limit[resource] = capacity * _SLACK
        self.crowd(resource)

    def crowd(self, resource: int) -> None:
        """Share a resource out anew, once all that happens at this instant has happened."""
        if not self.crowded:
            flush = new_alarm(self.env)
            flush.callbacks = [self._flush]
            self.env.schedule(flush, _AFTER_ALL_ELSE)
        self.crowded[resource] = None

    def _flush(self, _: simpy.Event) -> None:
        resources, self.crowded = self.crowded, {}
        seen: set[int] = set()
        together: dict[LanePlayer, dict[LanePlayer, None]] = {}  # of each activity all that it must be shared out with
        for resource in resources:
            if resource not in seen:
                members = self._sharers(resource, seen)
                for player in list(members):
                    members |= together.get(player, {})  # found by another resource before
                for player in members:
                    together[player] = members
        shared: set[int] = set()
        for members in list(together.values()):
            if id(members) not in shared:
                shared.add(id(members))
                self._share(list(members))

    def _sharers(self, resource: int, seen: set[int]) -> dict[LanePlayer, None]:
        """Every activity that shares an oversubscribed resource, directly or through another; `seen` grows."""
        load, limit, users, driven = self.load, self.limit, self.users, self.driven
        members: dict[LanePlayer, None] = {}
        seen.add(resource)
        frontier = [resource]
        while frontier:
            resource = frontier.pop()
            for player in (*users[resource], *driven.get(resource, ())):
                part = player.part
                if part is None or player in members:
                    continue
                for other, _ in part.demands:
                    if other == resource:
                        break
                else:
                    continue
                members[player] = None
                slowed = player.speed != 1.0
                for other, _ in part.demands:
                    if other not in seen and (slowed or load[other] > limit[other]):
                        seen.add(other)
                        frontier.append(other)
        return members

    def _share(self, members: list[LanePlayer]) -> None:
        """Max-min fair speeds for activities that share resources with no others."""
        if not members:
            return
        if len(members) == 1 and all(amount <= self.limit[r] for r, amount in members[0].part.demands):
            if members[0].speed != 1.0:
                members[0].set_speed(1.0)
            return
        speeds = max_min_speeds(
            [player.part.demands for player in members],
            [player.part.pace for player in members],
            self.capacity,
        )
        for player, speed in zip(members, speeds):
            if speed != player.speed:
                player.set_speed(speed)


def _used_alone(lane: Lane) -> set[int]:
    """Resources that the lane's ops use without meeting other classes."""
    distinct = {id(item.fragment.ops): item.fragment.ops for item in lane.items}.values()
    return {r for ops in distinct for op in ops if op.meeting < 0 for part in op.parts for r, _ in part.demands}
