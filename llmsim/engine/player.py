"""Plays a `Plan` on simpy: every kernel, ring step and transfer is an event. The only module that imports simpy.

Cost is the design: one scheduled event for an uncontended step, no process and no allocation per op. A lane owns one
reusable simpy event, its alarm; when rates change the alarm is moved, or found early when it rings and set again.
"""

from array import array
from collections.abc import Callable

import numpy as np
import simpy

from llmsim.engine.fairness import max_min_speeds
from llmsim.engine.plan import Lane, Part, Plan
from llmsim.errors import SimulationError

_SLACK = 1.0 + 1e-7  # a resource counts as oversubscribed beyond this, so that rounding does not
_NEVER = float("inf")
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
    stage = _Stage(plan, steps)
    events = stage.run(progress)
    blocked = [player for player in stage.players if player.index < player.count]
    if blocked:
        raise SimulationError(_describe_blocked(blocked))
    return Played([player.rows() for player in stage.players], events, stage.env.now)


def _describe_blocked(blocked: list["_Player"]) -> str:
    shown = ", ".join(
        f"{player.lane.name} of class {player.lane.owner} at item {player.index} of {player.count}"
        for player in blocked[:8]
    )
    more = f" and {len(blocked) - 8} more" if len(blocked) > 8 else ""
    return f"nothing can go on at time {blocked[0].env.now:.6g} s; blocked: {shown}{more}"


class _Stage:
    """The mutable state of one run: loads of the resources, signals fired, arrivals at meetings."""

    def __init__(self, plan: Plan, steps: bool) -> None:
        self.env = simpy.Environment()
        self.plan = plan
        self.steps = steps
        self.capacity = list(plan.capacities)
        self.limit = [capacity * _SLACK for capacity in self.capacity]
        self.load = [0.0] * len(self.capacity)
        self.fired = bytearray(plan.signals)
        self.waiting: dict[int, list[_Player]] = {}
        self.arrived: list[list[_Player]] = [[] for _ in plan.meetings]
        self.players = [_Player(self, lane) for lane in plan.lanes]
        self.users: list[list[_Player]] = [[] for _ in self.capacity]
        self.driven: dict[int, dict[_Player, None]] = {}  # by resource: players of meetings that use it now
        self.crowded: dict[int, None] = {}  # resources to share out anew at this instant
        for player in self.players:
            for resource in sorted(_used_alone(player.lane)):
                self.users[resource].append(player)
        for change in plan.changes:
            event = self.env.timeout(change.time)
            event.callbacks.append(lambda _, change=change: self._change(change.resource, change.capacity))

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
            flush = _alarm(self.env)
            flush.callbacks = [self._flush]
            self.env.schedule(flush, _AFTER_ALL_ELSE)
        self.crowded[resource] = None

    def _flush(self, _: simpy.Event) -> None:
        resources, self.crowded = self.crowded, {}
        seen: set[int] = set()
        for resource in resources:
            if resource not in seen:
                self._share(self._sharers(resource, seen))

    def _sharers(self, resource: int, seen: set[int]) -> list["_Player"]:
        """Every activity that shares an oversubscribed resource, directly or through another; `seen` grows."""
        load, limit, users, driven = self.load, self.limit, self.users, self.driven
        members: dict[_Player, None] = {}
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
        return list(members)

    def _share(self, members: list["_Player"]) -> None:
        """Max-min fair speeds for activities that share resources with no others."""
        if not members:
            return
        if len(members) == 1 and all(amount <= self.limit[r] for r, amount in members[0].part.demands):
            if members[0].speed != 1.0:
                members[0].set_speed(1.0)
            return
        speeds = max_min_speeds(
            [player.part.demands for player in members],
            [player.part.weight for player in members],
            self.capacity,
        )
        for player, speed in zip(members, speeds):
            if speed != player.speed:
                player.set_speed(speed)


def _used_alone(lane: Lane) -> set[int]:
    """Resources that the lane's ops use without meeting other classes."""
    distinct = {id(item.fragment.ops): item.fragment.ops for item in lane.items}.values()
    return {r for ops in distinct for op in ops if op.meeting < 0 for part in op.parts for r, _ in part.demands}


class _Player:
    """Plays one lane: the current item, op, part and step, and how much of the step is left.

    The path of an undisturbed kernel is `_ring` → `_begin_op` → `_begin_part`, that of a ring step `_ring` alone;
    they are what a simulation's time is spent on.
    """

    __slots__ = (
        "alarm", "bells", "count", "due", "env", "followers", "index", "items", "lane", "left_latency", "left_seconds",
        "mark", "op_index", "ops", "part", "part_index", "parts", "schedule", "speed", "stage", "started",
        "steps_left", "times",
    )  # fmt: skip

    def __init__(self, stage: _Stage, lane: Lane) -> None:
        self.stage, self.env, self.lane = stage, stage.env, lane
        self.items, self.count, self.index = lane.items, len(lane.items), 0
        self.times = array("d")  # start and end of each op, in the order of the lane
        self.bells = [self._ring]
        self.schedule = stage.env.schedule
        self.alarm = _alarm(self.env)
        self.part: Part | None = None
        self.speed, self.due = 1.0, 0.0
        self.followers: list[_Player] | None = None

    def next_item(self) -> None:
        """Start the item at `index` if all it waits for has happened; items without ops pass at once."""
        stage = self.stage
        fired = stage.fired
        while self.index < self.count:
            fragment, _, base, waits, _ = self.items[self.index]
            for signal in waits:
                if not fired[signal]:
                    stage.waiting.setdefault(signal, []).append(self)
                    return
            for offset in fragment.waits:
                if not fired[base + offset]:
                    stage.waiting.setdefault(base + offset, []).append(self)
                    return
            if fragment.ops:
                self.ops, self.op_index = fragment.ops, 0
                self._begin_op()
                return
            self._finish_item()

    def _finish_item(self) -> None:
        fragment, _, base, _, signals = self.items[self.index]
        self.index += 1
        stage = self.stage
        for offset in fragment.signals:
            stage.fire(base + offset)
        for signal, delay in signals:
            stage.fire_later(signal, delay)

    def _begin_op(self) -> None:
        _, self.parts, meeting = self.ops[self.op_index]
        self.started = self.env._now
        self.part_index = 0
        if meeting < 0 or self._meet(meeting):
            self._begin_part()

    def _meet(self, meeting: int) -> bool:
        """Whether all members of the meeting are there; then this player plays the op for all of them."""
        stage = self.stage
        arrived = stage.arrived[meeting]
        if len(arrived) + 1 < stage.plan.meetings[meeting]:
            arrived.append(self)
            return False
        self.followers = arrived[:]
        arrived.clear()
        for follower in self.followers:
            follower.started = self.started  # it begins when its last member arrives
        return True

    def _begin_part(self) -> None:
        stage = self.stage
        self.part = part = self.parts[self.part_index]
        repeat, latency, seconds, demands, _ = part
        load, limit = stage.load, stage.limit
        for resource, amount in demands:
            total = load[resource] + amount
            load[resource] = total
            if total > limit[resource]:
                stage.crowd(resource)
        if self.followers is not None:
            for resource, _ in demands:
                stage.driven.setdefault(resource, {})[self] = None
        if not stage.steps and repeat > 1:
            repeat, latency, seconds = 1, latency * repeat, seconds * repeat
        self.steps_left, self.left_latency, self.left_seconds = repeat, latency, seconds
        self.mark = now = self.env._now
        self.speed = 1.0
        self.due = now + (latency + seconds)
        self.alarm.callbacks = self.bells
        self.schedule(self.alarm, 1, latency + seconds)

    def _ring(self, event: simpy.Event) -> None:
        """The alarm: the step is over, unless rates changed meanwhile."""
        if event is not self.alarm:
            return  # an alarm that was replaced by an earlier one
        now = self.env._now
        if self.due > now:
            self._set_alarm(self.due - now)
            return
        _, latency, seconds, demands, _ = self.part
        if self.steps_left > 1:
            self.steps_left -= 1
            self.mark, self.left_latency, self.left_seconds = now, latency, seconds
            wait = latency + (seconds if self.speed == 1.0 else self._stretched(seconds))
            self.due = now + wait
            self._set_alarm(wait)
            return
        stage = self.stage
        load, limit = stage.load, stage.limit
        for resource, amount in demands:
            if load[resource] > limit[resource]:
                stage.crowd(resource)
            load[resource] -= amount
        if self.followers is not None:
            for resource, _ in demands:
                del stage.driven[resource][self]
        self.part = None
        self.part_index += 1
        if self.part_index < len(self.parts):
            self._begin_part()
            return
        if self.followers is not None:
            self._dismiss(now)
        self._end_op(now)

    def _end_op(self, now: float) -> None:
        times = self.times
        times.append(self.started)
        times.append(now)
        self.op_index += 1
        if self.op_index < len(self.ops):
            self._begin_op()
            return
        self._finish_item()
        self.next_item()

    def _dismiss(self, now: float) -> None:
        """The other members of the meeting go on."""
        followers, self.followers = self.followers, None
        for follower in followers:
            follower._end_op(now)

    def _set_alarm(self, wait: float) -> None:
        if wait != _NEVER:
            self.alarm.callbacks = self.bells
            self.schedule(self.alarm, 1, wait)

    def _stretched(self, seconds: float) -> float:
        return seconds / self.speed if self.speed > 0 else _NEVER

    def set_speed(self, speed: float) -> None:
        """Go on at another speed from now: book what is done, and move the alarm when the end comes earlier."""
        now = self.env._now
        elapsed = now - self.mark
        self.mark = now
        if elapsed <= self.left_latency:
            self.left_latency -= elapsed
        else:
            self.left_seconds = max(0.0, self.left_seconds - (elapsed - self.left_latency) * self.speed)
            self.left_latency = 0.0
        self.speed = speed
        wait = self.left_latency + (self._stretched(self.left_seconds) if self.left_seconds > 0 else 0.0)
        before, self.due = self.due, now + wait
        if self.due < before:
            self.alarm = _alarm(self.env)
            self._set_alarm(wait)

    def rows(self) -> np.ndarray:
        """float (ops, 4): label, tag, start (s), end (s)."""
        rows = np.empty((len(self.times) // 2, 4))
        rows[:, 2:] = np.frombuffer(self.times, dtype=float).reshape(-1, 2)
        labels = {id(item.fragment.ops): [op.label for op in item.fragment.ops] for item in self.items}
        rows[:, 0] = [label for item in self.items for label in labels[id(item.fragment.ops)]]
        rows[:, 1] = [item.tag for item in self.items for _ in item.fragment.ops]
        return rows


def _alarm(env: simpy.Environment) -> simpy.Event:
    """An event that a player schedules again and again."""
    alarm = simpy.Event(env)
    alarm._ok, alarm._value = True, None
    return alarm
