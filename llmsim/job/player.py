"""Plays one run of a job: a `Job`, a seed and the number of the run go in, what became of it comes out.

The job is one life on the engine's clock. It trains until something happens: a failure, a node that comes back, a slow
GPU that is found. A failure throws it back to a checkpoint, and it trains on when detection, restart and loading are
over; failures meanwhile begin all that anew. While it waits for nodes nothing runs, and nothing fails.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

from llmsim.engine.clock import Clock
from llmsim.errors import ScenarioError
from llmsim.job.failures import SOFT, Failure
from llmsim.job.nodes import SLIGHTEST, Back, Nodes
from llmsim.job.policy import Job, State
from llmsim.job.progress import Progress
from llmsim.job.spread import slowest

Steps = Generator[float, Any, None]
_TOO_LONG, _TOO_MANY = 200.0, 2000  # a run that does not end although each of its parts could


class NeverEnds(ScenarioError):
    """No node is left to go on with and none will come back, or failures undo all that is done."""


class UnknownPace(Exception):
    """The run needs the iteration time of a state that has not been simulated."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.state = state


@dataclass(frozen=True, slots=True)
class Noticed:
    """News: a slow GPU or a corruption is found, or a flap is over."""

    cause: str
    node: int
    iteration: float = 0.0


@dataclass(slots=True)
class Outcome:
    """One run. Seconds: `elapsed` = `productive` + sum of `lost`. failures: interruptions by cause. saves: that ended.

    history: (s, iterations) of all moments at which something changed, and marks: (s, cause) of interruptions, where
    they were asked for.
    """

    elapsed: float
    productive: float
    lost: dict[str, float]
    failures: dict[str, int]
    saves: int
    history: list[tuple[float, float]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)


def play_job(job: Job, seed: int, run: int, history: bool = False) -> Outcome:
    """Play run number `run`. Raises `NeverEnds`, or `UnknownPace` where `job.paces` lacks a state that it comes to."""
    player = _Player(job, job.failures.drawn(seed, run), history)
    player.clock.play(player.life())
    progress = player.progress
    return Outcome(
        player.clock.now, progress.productive, progress.lost, player.counts, progress.written, player.history,
        player.marks,
    )  # fmt: skip


class _Player:
    def __init__(self, job: Job, failures: Iterator[Failure], history: bool) -> None:
        self.job, self.failures, self.clock = job, failures, Clock()
        self.progress = Progress(job.iterations, job.pace, job.checkpoint, job.pace)
        self.nodes = Nodes(job, self.clock)
        self.slow = self.flaps = 0
        self.corrupt: float | None = None  # the iteration that silent corruption goes back to
        self.stop: str | None = None  # why to stop after the next save
        self.stop_node = -1
        self.variation = 1.0
        self.counts: dict[str, int] = {}
        self.recording = history
        self.history: list[tuple[float, float]] = [(0.0, 0.0)] if history else []
        self.marks: list[tuple[float, str]] = []
        self._last_mark = 0.5

    # -- training ----------------------------------------------------------------------------------------------------

    def life(self) -> Steps:
        self._announce_next()
        self._set_pace()
        progress, clock = self.progress, self.clock
        while True:
            began = clock.now
            until = progress.until_saved() if self.stop else progress.until_done()
            news = yield began + until
            if clock.now > _TOO_LONG * self.job.ideal and sum(self.counts.values()) > _TOO_MANY:
                raise NeverEnds(
                    f"job: after {_TOO_LONG:g} times as long as without failures, and {_TOO_MANY:,} interruptions, "
                    f"{progress.iteration / self.job.iterations:.0%} of iterations are done; expected fewer failures "
                    "or shorter intervals"
                )
            passed = clock.now - began
            if news is None or until - passed < SLIGHTEST:
                if not self.stop or progress.until_done() - until < SLIGHTEST:
                    progress.finish()
                    self._record()
                    return
                progress.advance(until)
                self._record()
                yield from self._planned_stop()
                if news is None:
                    continue
            else:
                progress.advance(passed)
                self._record()
            yield from self._hear(news)

    def _hear(self, news: object) -> Steps:
        """Something happened while training."""
        if isinstance(news, Failure):
            self._announce_next()
            if self._concerns(news):
                if news.cause in SOFT or news.cause == "planned":
                    self._soften(news)
                else:
                    yield from self._fail(news.cause, news)
        elif isinstance(news, Back):
            yield from self._welcome()
        else:
            yield from self._notice(news)
        self._set_pace()

    def _soften(self, failure: Failure) -> None:
        """Training goes on, slower or wrong, or until its next save."""
        now, soft = self.clock.now, self.job.soft
        if failure.cause == "planned":
            self.stop, self.stop_node = "planned", -1
        elif failure.cause == "sdc":
            if self.corrupt is None:
                self.corrupt = self.progress.iteration
            found = soft.sdc_found.at(failure.marks[1])
            self.clock.announce(now + found, Noticed("sdc", failure.node, self.progress.iteration))
        elif failure.cause == "slow_gpu":
            self.slow += 1
            self.clock.announce(now + soft.slow_found.at(failure.marks[1]), Noticed("slow_gpu", failure.node))
        else:
            self.flaps += 1
            self.clock.announce(now + soft.flap_time, Noticed("flap", -1))

    def _notice(self, news: Noticed) -> Steps:
        if news.cause == "flap":
            self.flaps -= 1
        elif news.cause == "slow_gpu":
            self.stop, self.stop_node = "slow_gpu", news.node
        elif self.corrupt is not None:  # else a failure has thrown the job back behind it already
            yield from self._fail("sdc", Failure(self.clock.now, "sdc", news.node, (self._last_mark,) * 4))

    def _set_pace(self) -> None:
        if not (self.nodes.holes or self.slow or self.flaps):
            self.progress.pace = self.job.pace * self.variation
            return
        state = State(self.nodes.missing_replicas(), self.slow > 0, self.flaps > 0)
        pace = self.job.paces.get(state)
        if pace is None:
            raise UnknownPace(state)
        self.progress.pace = pace * self.variation

    def _announce_next(self) -> None:
        failure = next(self.failures, None)
        if failure is not None:
            self.clock.announce(failure.time, failure)

    def _concerns(self, failure: Failure) -> bool:
        """Whether a node stands there that can fail."""
        return failure.node < 0 or failure.node not in self.nodes.holes

    # -- interruptions -----------------------------------------------------------------------------------------------

    def _fail(self, cause: str, failure: Failure) -> Steps:
        """Thrown back to a checkpoint, and through the recovery."""
        self._count(cause)
        several = cause == "switch" and self.job.spares.behind_switch > 1
        target = self.progress.usable(several)
        if cause == "sdc":
            every, keep = self.job.checkpoint.every, self.job.checkpoint.keep
            clean = int(self.corrupt // every)
            # Where all that were kept are corrupt, training starts anew.
            target = min(target, clean) if keep is None or clean > self.progress.saved - keep else 0
        if self.corrupt is not None and target * self.job.checkpoint.every <= self.corrupt:
            self.corrupt = None
        self.progress.roll_back(target)
        self.stop = None if self.stop == "planned" else self.stop
        self._record()
        yield from self._recover(cause, failure, several)

    def _recover(self, cause: str, failure: Failure, several: bool) -> Steps:
        recovery = self.job.recovery
        while True:
            swap = self.nodes.take(cause, failure)
            detect = 0.0 if cause in ("sdc", "planned", "slow_gpu") else recovery.detect.at(failure.marks[1])
            self._last_mark = failure.marks[2]
            phases = [("detection", detect + recovery.diagnose if detect else 0.0)]
            interruption = None
            if not self.nodes.enough():
                interruption = yield from self._phases(phases)
                phases = []
            if interruption is None:
                yield from self._wait_for_nodes()
                restart = recovery.restart.at(failure.marks[2]) + recovery.warm_up
                phases += [("waiting", swap), ("restart", restart), ("load", self._loading(several))]
                interruption = yield from self._phases(phases)
            if interruption is None:
                break
            failure, cause = interruption, interruption.cause
            several = several or (cause == "switch" and self.job.spares.behind_switch > 1)
            self._count(cause)
            if several and self.job.checkpoint.peer is not None:
                self.progress.roll_back(self.progress.usable(True))
        if self.job.variation:
            self.variation = 1.0 + max(0.0, self.job.variation * slowest(self.job.gpus, failure.marks[3]))
        self._set_pace()
        self._record()

    def _loading(self, several: bool) -> float:
        """Seconds to read the checkpoint, from the memory of peers where they still have it."""
        kind = self.job.checkpoint
        return kind.load if kind.peer is None or several else kind.load_peer

    def _phases(self, phases: list[tuple[str, float]]) -> Generator[float, Any, Failure | None]:
        """Let the phases pass one after the other; a failure that stops them is returned, with the rest undone."""
        lost, clock = self.progress.lost, self.clock
        end = clock.now + sum(seconds for _, seconds in phases)
        began, news = clock.now, None
        while clock.now < end:
            news = yield end
            if news is None:
                break
            if isinstance(news, Failure):
                self._announce_next()
                if not self._concerns(news):
                    continue
                if news.cause in SOFT:
                    if news.cause == "slow_gpu":  # nothing runs that could be corrupted or a link that is used
                        self._soften(news)
                    continue
                if news.cause != "planned":
                    break
            elif isinstance(news, Back):
                self.nodes.fill()
            else:
                self._notice_stopped(news)
        passed = clock.now - began
        for name, seconds in phases:
            part = min(seconds, passed)
            lost[name] += part
            passed -= part
        return news if isinstance(news, Failure) and clock.now < end else None

    def _notice_stopped(self, news: Noticed) -> None:
        """Found while the job stood: a slow GPU leaves after the next save, corruption waits for the restart."""
        if news.cause == "flap":
            self.flaps -= 1
        elif news.cause == "slow_gpu":
            self.stop, self.stop_node = "slow_gpu", news.node
        else:
            self.clock.announce(self.clock.now + self.job.recovery.mean + 1.0, news)

    def _planned_stop(self) -> Steps:
        """Right after a save: nothing is lost, and nothing has to be detected."""
        cause, node = self.stop, self.stop_node
        self.stop = None
        if cause == "slow_gpu":
            self.slow -= 1
        self._count(cause)
        # A save that is still being copied is waited for by those who stop on purpose.
        self.progress.lost["checkpoint"] += self.progress.copying
        end = self.clock.now + self.progress.copying
        self.progress.copying = 0.0
        while self.clock.now < end:
            news = yield end
            if news is None:
                break
            if isinstance(news, Failure):
                self._announce_next()
            elif isinstance(news, Back):
                self.nodes.fill()
            else:
                self._notice_stopped(news)
        yield from self._recover(cause, Failure(self.clock.now, cause, node, (self._last_mark,) * 4), False)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _wait_for_nodes(self) -> Steps:
        """Stand still until there are enough nodes. Nothing fails meanwhile."""
        began = self.clock.now
        while not self.nodes.enough():
            if not self.nodes.repairs:
                raise NeverEnds(
                    f"job.spares.nodes: {self.job.spares.nodes} spares are used up after "
                    f"{self.clock.now / 86400.0:.3g} days, and no node is repaired; expected more of them, a "
                    "job.spares.repair, or job.elastic true"
                )
            news = yield inf
            if isinstance(news, Failure):
                self._announce_next()
            elif isinstance(news, Back):
                self.nodes.fill()
            else:
                self._notice_stopped(news)
        self.progress.lost["waiting"] += self.clock.now - began

    def _welcome(self) -> Steps:
        """Nodes came back while training: as spares, or to make a replica whole, which stops training for a moment."""
        before = self.nodes.missing_replicas()
        self.nodes.fill()
        if before > self.nodes.missing_replicas() and self.job.elastic.rejoin:
            interruption = yield from self._phases([("restart", self.job.elastic.rejoin)])
            if interruption is not None:
                yield from self._fail(interruption.cause, interruption)

    def _count(self, cause: str) -> None:
        self.counts[cause] = self.counts.get(cause, 0) + 1
        if self.recording:
            self.marks.append((self.clock.now, cause))

    def _record(self) -> None:
        if self.recording:
            self.history.append((self.clock.now, self.progress.iteration))
