"""What sharing and the state of a run know of whatever takes time: its part, its speed, and how to change it."""

from typing import Protocol

import simpy

from llmsim.engine.plan import Part

NEVER = float("inf")


class Activity(Protocol):
    """Something being done on shared resources. `reason`: the resource that holds it back while `speed` is below 1."""

    part: Part | None
    speed: float
    reason: int

    def set_speed(self, speed: float) -> None:
        """From now on it goes at this share of its full rate."""

    def next_item(self) -> None:
        """What it waited for has happened."""


def new_alarm(env: simpy.Environment) -> simpy.Event:
    """An event that a player schedules again and again."""
    alarm = simpy.Event(env)
    alarm._ok, alarm._value = True, None
    return alarm
