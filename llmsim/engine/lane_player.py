"""One lane being played: its current item, op, part and step, and the alarm that rings when the step is over."""

from array import array

import numpy as np
import simpy

from llmsim.engine.activity import NEVER, new_alarm
from llmsim.engine.plan import Lane, Part
from llmsim.engine.state import Stage


class LanePlayer:
    """Plays one lane: the current item, op, part and step, and how much of the step is left.

    The path of an undisturbed kernel is `_ring` → `_begin_op` → `_begin_part`, that of a ring step `_ring` alone;
    they are what a simulation's time is spent on.
    """

    __slots__ = (
        "alarm", "bells", "board", "count", "due", "env", "followers", "index", "items", "lane", "left_latency",
        "left_seconds", "mark", "op_index", "ops", "part", "part_index", "parts", "reason", "schedule", "speed",
        "stage", "started", "steps_left", "times",
    )  # fmt: skip

    def __init__(self, stage: Stage, lane: Lane) -> None:
        self.stage, self.env, self.lane = stage, stage.env, lane
        self.items, self.count, self.index = lane.items, len(lane.items), 0
        self.board = stage.boards.setdefault(lane.name, {})
        self.times = array("d")  # start and end of each op, in the order of the lane
        self.bells = [self._ring]
        self.schedule = stage.env.schedule
        self.alarm = new_alarm(self.env)
        self.part: Part | None = None
        self.speed, self.due = 1.0, 0.0
        self.reason = -1  # the resource that holds it back while speed is below 1
        self.followers: list[LanePlayer] | None = None

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
        fired, waiting = stage.fired, stage.waiting
        for signal, delay in signals:
            if delay > 0.0:
                stage.fire_later(signal, delay)
                continue
            fired[signal] = 1  # as `fire`, which is called too often to be called
            if signal in waiting:
                for player in waiting.pop(signal):
                    player.next_item()

    def _begin_op(self) -> None:
        _, self.parts, meeting = self.ops[self.op_index]
        self.started = self.env._now
        self.part_index = 0
        if meeting < 0 or self._meet(meeting):
            self._begin_part()

    def _meet(self, meeting: int) -> bool:
        """Whether all members of the meeting are there; then this player plays the op for all of them.

        Lanes of different names meet apart: what a class plays in one lane is not what others wait for in another.
        """
        arrived = self.board.get(meeting)
        if arrived is None:
            arrived = self.board[meeting] = []
        if len(arrived) + 1 < self.stage.plan.meetings[meeting]:
            arrived.append(self)
            return False
        self.followers = arrived
        self.board[meeting] = []
        for follower in arrived:
            follower.started = self.started  # it begins when its last member arrives
        return True

    def _begin_part(self) -> None:
        stage = self.stage
        self.part = part = self.parts[self.part_index]
        repeat, latency, seconds, demands, _ = part
        if demands:
            load, limit, users, crowded = stage.load, stage.limit, stage.users, False
            for resource, amount in demands:
                total = load[resource] + amount
                load[resource] = total
                users[resource][self] = amount
                if total > limit[resource]:
                    crowded = True
                    if resource not in stage.crowded:
                        stage.crowd(resource)
            if crowded:
                stage.begun[self] = None
        if not stage.steps and repeat > 1:
            repeat, latency, seconds = 1, latency * repeat, seconds * repeat
        self.steps_left, self.left_latency, self.left_seconds = repeat, latency, seconds
        self.mark = now = self.env._now
        self.speed, self.reason = 1.0, -1
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
        load, limit, users = stage.load, stage.limit, stage.users
        for resource, amount in demands:
            if load[resource] > limit[resource] and resource not in stage.crowded:
                stage.crowd(resource)
            load[resource] -= amount
            del users[resource][self]
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
        if wait != NEVER:
            self.alarm.callbacks = self.bells
            self.schedule(self.alarm, 1, wait)

    def _stretched(self, seconds: float) -> float:
        return seconds / self.speed if self.speed > 0 else NEVER

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
            self.alarm = new_alarm(self.env)
            self._set_alarm(wait)

    def rows(self) -> np.ndarray:
        """float (ops, 4): label, tag, start (s), end (s)."""
        rows = np.empty((len(self.times) // 2, 4))
        rows[:, 2:] = np.frombuffer(self.times, dtype=float).reshape(-1, 2)
        labels = {id(item.fragment.ops): [op.label for op in item.fragment.ops] for item in self.items}
        rows[:, 0] = [label for item in self.items for label in labels[id(item.fragment.ops)]]
        rows[:, 1] = [item.tag for item in self.items for _ in item.fragment.ops]
        return rows
