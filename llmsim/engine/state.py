"""The mutable state of one run: loads of resources, signals that fired, arrivals at meetings."""

from collections.abc import Callable

import simpy

from llmsim.engine.lane_player import NEVER, LanePlayer, new_alarm
from llmsim.engine.plan import Lane, Part, Plan
from llmsim.engine.sharing import Sharing

_AFTER_ALL_ELSE = 9  # simpy's events have priorities 0 and 1


class Stage:
    """The mutable state of one run: loads of the resources, signals fired, arrivals at meetings."""

    def __init__(self, plan: Plan, steps: bool) -> None:
        self.env = simpy.Environment()
        self.plan = plan
        self.steps = steps
        self.sharing = Sharing(plan.capacities)
        self.load, self.limit, self.users = self.sharing.load, self.sharing.limit, self.sharing.users
        self.fired = bytearray(plan.signals)
        self.waiting: dict[int, list[LanePlayer]] = {}
        self.arrived: dict[tuple[int, str], list[LanePlayer]] = {}
        self.players = [LanePlayer(self, lane) for lane in plan.lanes]
        self.crowded: dict[int, None] = {}  # resources to share out anew at this instant
        self.begun: dict[LanePlayer, None] = {}  # activities that have begun there at this instant
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
            self.users[resource][player] = amount
            self.load[resource] += amount
            if self.load[resource] > self.limit[resource]:
                self.crowd(resource)
                self.begun[player] = None

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
        self.env.timeout(delay).callbacks.append(lambda _: self.fire(signal))

    def _change(self, resource: int, capacity: float) -> None:
        self.sharing.change(resource, capacity)
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
        begun, self.begun = self.begun, {}
        self.sharing.renew(resources, begun)
