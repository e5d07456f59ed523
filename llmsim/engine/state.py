"""The mutable state of one run: loads of resources, signals that fired, arrivals at meetings."""

import simpy

from llmsim.engine.activity import Activity, new_alarm
from llmsim.engine.plan import Plan
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
        self.waiting: dict[int, list[Activity]] = {}
        # Of each lane name, who has arrived at each meeting.
        self.boards: dict[str, dict[int, list[Activity]]] = {}
        self.crowded: dict[int, None] = {}  # resources to share out anew at this instant
        self.begun: dict[Activity, None] = {}  # activities that have begun there at this instant
        for change in plan.changes:
            event = self.env.timeout(change.time)
            event.callbacks.append(lambda _, change=change: self._change(change.resource, change.capacity))

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
