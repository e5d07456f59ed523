"""How far training gets in some seconds: paces and saves go in, iterations done and where the time went come out.

Between two events nothing changes, so that any number of saves is one sum and no event. A job that stands at iteration
`saved·every + since` has made `saved` checkpoints on its way there; after a failure it goes on from one of them.
"""

from dataclasses import dataclass, field
from math import ceil

from llmsim.job.policy import Checkpointing

CAUSES = ("checkpoint", "detection", "restart", "load", "recomputed", "degraded", "waiting")


@dataclass(slots=True)
class Progress:
    """The place of a job between its saves, and its ledger.

    goal: iterations. healthy: seconds of an iteration when all is well; pace: of one as things stand. since: iterations
    after the last save; saving: seconds of a save under way; copying: seconds that the last one is still being copied.
    productive and lost (by cause) are seconds and add up to the time that passed.
    """

    goal: int
    healthy: float
    checkpoint: Checkpointing
    pace: float
    saved: int = 0
    since: float = 0.0
    saving: float = 0.0
    copying: float = 0.0
    productive: float = 0.0
    written: int = 0  # saves that ended, those that a failure made worthless included
    lost: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))

    @property
    def iteration(self) -> float:
        return self.saved * self.checkpoint.every + self.since

    @property
    def done(self) -> bool:
        return self.saved >= ceil(self.goal / self.checkpoint.every)

    def until_saved(self) -> float:
        """Seconds until the save that comes next has ended."""
        return self._work(self._length() - self.since, self.copying) + self.checkpoint.stall - self.saving

    def until_done(self) -> float:
        """Seconds until the last save has ended, if nothing happens."""
        every = self.checkpoint.every
        left = self.goal - self.saved * every - self._length()
        whole, rest = divmod(left, every)
        seconds = self.until_saved() + whole * self._cycle(every)
        return seconds + (self._cycle(rest) if rest else 0.0)

    def advance(self, seconds: float) -> None:
        """Train for so long, at most to the end."""
        first = self.until_saved()
        if seconds < first:
            self._within(seconds)
            return
        self._end_cycle(first)
        seconds -= first
        every = self.checkpoint.every
        cycle, whole = self._cycle(every), (self.goal - self.saved * every) // every
        many = min(int(seconds / cycle), whole) if whole > 0 else 0
        if many:
            self._account(many * cycle, many * every, many * self.checkpoint.stall, many * self._copied(every))
            self.saved += many
            self.written += many
            seconds -= many * cycle
        if not self.done and seconds > 0:
            if seconds >= self.until_saved():
                self._end_cycle(self.until_saved())
            else:
                self._within(seconds)

    def finish(self) -> None:
        """To the end, whatever rounding left of the way."""
        while not self.done:
            self.advance(self.until_done())

    def roll_back(self, save: int) -> None:
        """Go on from this checkpoint: what was done since is to be done again."""
        undone = ((self.saved - save) * self.checkpoint.every + self.since) * self.healthy
        self.productive -= undone
        self.lost["recomputed"] += undone
        self.saved, self.since, self.saving, self.copying = save, 0.0, 0.0, 0.0

    def usable(self, peers_lost: bool) -> int:
        """The newest checkpoint that can be read. peers_lost: more went at once than the copies in memory survive."""
        kind = self.checkpoint
        if kind.peer is None:
            return max(0, self.saved - 1) if self.copying > 0 else self.saved
        if not peers_lost:
            return max(0, self.saved - 1) if self.copying > 0 else self.saved
        late = ceil(kind.persist / self._cycle(kind.every)) if kind.persist else 0
        return max(0, (self.saved - late) // kind.storage_every * kind.storage_every)

    # -- within one cycle: the work between two saves, and the save --------------------------------------------------

    def _length(self) -> int:
        """Iterations of the cycle under way: the last one may be short."""
        return min(self.checkpoint.every, self.goal - self.saved * self.checkpoint.every)

    def _work(self, iterations: float, copying: float) -> float:
        """Seconds for some iterations while the last save is still being copied for `copying` seconds."""
        slow = self.pace * self.checkpoint.slowed
        beside = copying / slow
        return iterations * slow if iterations <= beside else copying + (iterations - beside) * self.pace

    def _cycle(self, iterations: float) -> float:
        return self._work(iterations, self.checkpoint.copying) + self.checkpoint.stall

    def _copied(self, iterations: float) -> float:
        """Seconds of a whole cycle in which a copy is under way."""
        return min(self.checkpoint.copying, self._work(iterations, self.checkpoint.copying))

    def _end_cycle(self, seconds: float) -> None:
        left = self._length() - self.since
        self._account(
            seconds, left, self.checkpoint.stall - self.saving, min(self.copying, self._work(left, self.copying))
        )
        self.saved += 1
        self.written += 1
        self.since, self.saving, self.copying = 0.0, 0.0, self.checkpoint.copying

    def _within(self, seconds: float) -> None:
        """Part of a cycle."""
        left = self._length() - self.since
        work = self._work(left, self.copying)
        if seconds >= work:
            stalled, copied = seconds - work, min(self.copying, work)
            self._account(seconds, left, stalled, copied)
            self.since, self.saving, self.copying = self.since + left, self.saving + stalled, self.copying - copied
            return
        copied = min(self.copying, seconds)
        slow = self.pace * self.checkpoint.slowed
        made = copied / slow + (seconds - copied) / self.pace
        self._account(seconds, made, 0.0, copied)
        self.since, self.copying = self.since + made, self.copying - copied

    def _account(self, seconds: float, iterations: float, stalled: float, copied: float) -> None:
        """Of the time that passed: work at the healthy pace, saving, what copies cost, and the rest, a slower pace."""
        work = iterations * self.healthy
        saving = stalled + copied * (1.0 - 1.0 / self.checkpoint.slowed)
        self.productive += work
        self.lost["checkpoint"] += saving
        self.lost["degraded"] += seconds - work - saving
