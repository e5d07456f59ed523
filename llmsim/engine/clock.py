"""A clock of days for one slow process: a generator that waits for moments comes in, the end of its life comes out.

The process yields the moment (s) at which it wants to go on, and gets back None when that moment has come, or the news
that reached it first. News are what was announced for a moment with `announce`. Each is one simpy event.
"""

from collections.abc import Generator
from typing import Any

import simpy

Life = Generator[float, Any, None]


class Clock:
    """Simulated time in seconds. One life is played at a time."""

    def __init__(self) -> None:
        self._env = simpy.Environment()
        self._life: Life | None = None
        self._alarm: simpy.Event | None = None

    @property
    def now(self) -> float:
        return self._env.now

    def announce(self, moment: float, news: object) -> None:
        """Let `news` reach the life at `moment`, or now if that has passed."""
        event = simpy.Timeout(self._env, max(0.0, moment - self._env.now), news)
        event.callbacks.append(self._bring)

    def play(self, life: Life) -> None:
        """Run until the life ends. What was announced for later is forgotten."""
        self._life = life
        self._wake(None)
        while self._life is not None:
            self._env.step()

    def _bring(self, event: simpy.Event) -> None:
        self._alarm = None  # whatever moment the life was waiting for, it hears the news first
        self._wake(event.value)

    def _ring(self, event: simpy.Event) -> None:
        if event is self._alarm:
            self._alarm = None
            self._wake(None)

    def _wake(self, news: object) -> None:
        try:
            moment = self._life.send(news)
        except StopIteration:
            self._life = None
            return
        if moment == float("inf"):
            return
        self._alarm = simpy.Timeout(self._env, max(0.0, moment - self._env.now))
        self._alarm.callbacks.append(self._ring)
