"""When which part fails: failure rates and a seed go in, failures in the order of time come out.

Each class of parts draws from random streams of its own, made of the seed, the run and the class alone. What a job does
about failures therefore never changes them: two policies meet the same ones. A part that failed is new again from the
moment of its failure on (a renewal process), whatever node then stands in its place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from math import gamma, inf
from typing import NamedTuple

import numpy as np

# Classes of parts, and what their failures do. The order seeds the streams: append, never reorder.
CAUSES = ("gpu", "node", "nic", "link", "switch", "software", "sdc", "job", "planned", "slow_gpu", "flap", "fault")
TAKES_NODE = frozenset(("gpu", "node", "nic", "link", "switch", "sdc", "slow_gpu", "fault"))
SOFT = frozenset(("slow_gpu", "flap", "sdc"))  # training goes on for the time being
UNPLANNED = tuple(cause for cause in CAUSES if cause not in ("planned", "slow_gpu", "flap"))
_BATCH = 64  # failures that are drawn at once


class Failure(NamedTuple):
    """node: where it is, -1 where no node is to blame. marks: four numbers in 0..1 that decide what follows from it.

    repair: seconds that the repair takes, None where the job's own distribution says it.
    """

    time: float
    cause: str
    node: int
    marks: tuple[float, float, float, float]
    repair: float | None = None


@dataclass(frozen=True, slots=True)
class Offenders:
    """Bad nodes: the share of nodes that fails `factor` times as often as the others, at the same mean over all.

    exclude_after: failures of such a node after which it is replaced by a good one; None: never.
    """

    share: float
    factor: float
    exclude_after: int | None = None

    def scale(self, nodes: int) -> tuple[int, float, float]:
        """How many nodes are bad, and by what the mean times of good and bad ones differ from the mean of all."""
        bad = min(nodes, max(1, round(self.share * nodes)))
        mean = (bad * self.factor + nodes - bad) / nodes
        return bad, mean, mean / self.factor


@dataclass(frozen=True, slots=True)
class Parts:
    """One class: how many parts, spread evenly over the nodes, and the mean seconds between failures of one of them.

    shape: of the Weibull distribution of the gaps; below 1 young parts fail more often, 1 is exponential. burn_in:
    seconds that all parts have run before the job.
    """

    cause: str
    count: int
    mtbf: float
    shape: float = 1.0
    burn_in: float = 0.0

    @property
    def rate(self) -> float:
        """Failures per second of the whole class, in the long run."""
        return self.count / self.mtbf


@dataclass(frozen=True)
class Failures:
    """All that fails. gaps: seconds between failures of the whole job, drawn at random. fixed: those that are told."""

    nodes: int
    parts: tuple[Parts, ...] = ()
    offenders: Offenders | None = None
    gaps: tuple[float, ...] = ()
    fixed: tuple[Failure, ...] = ()

    @property
    def mtbf(self) -> float:
        """Mean seconds between unplanned interruptions of the job; infinite where nothing fails."""
        rate = sum(parts.rate for parts in self.parts if parts.cause in UNPLANNED)
        rate += len(self.gaps) / sum(self.gaps) if self.gaps else 0.0
        return 1.0 / rate if rate else inf

    @property
    def event_rate(self) -> float:
        """Events per second of all kinds, planned stops and degradations too: what playing the job costs."""
        return sum(parts.rate for parts in self.parts) + (len(self.gaps) / sum(self.gaps) if self.gaps else 0.0)

    @property
    def node_rate(self) -> float:
        """Failures per second that take a node."""
        return sum(parts.rate for parts in self.parts if parts.cause in TAKES_NODE)

    def drawn(self, seed: int, run: int) -> Iterator[Failure]:
        """The failures of one run, in the order of time, without end."""
        streams: list[Iterator[Failure]] = [iter(self.fixed)] if self.fixed else []
        for parts in self.parts:
            steady = parts.shape == 1.0
            streams.append((_steady if steady else _renewed)(parts, self, _random(seed, run, parts.cause)))
        if self.gaps:
            streams.append(_repeated(self.gaps, _random(seed, run, "job")))
        return _without_excluded(merge(*streams), self) if self.offenders else merge(*streams)


def _random(seed: int, run: int, cause: str) -> np.random.Generator:
    key = np.random.SeedSequence(seed, spawn_key=(run, CAUSES.index(cause)))
    return np.random.Generator(np.random.Philox(key))


def _steady(parts: Parts, all_parts: Failures, random: np.random.Generator) -> Iterator[Failure]:
    """Exponential gaps: the failures of many alike parts are one Poisson process, and any of them is as likely."""
    now, gap = 0.0, parts.mtbf / parts.count
    while True:
        times = now + np.cumsum(random.exponential(gap, _BATCH))
        now = float(times[-1])
        chosen, which = random.random(_BATCH), random.random(_BATCH)
        yield from _told(parts, times, _places(parts, all_parts, chosen, which), random)


def _places(parts: Parts, all_parts: Failures, chosen: np.ndarray, which: np.ndarray) -> np.ndarray:
    """int[n]: the node of each failure. Bad nodes are the first of every so many, and take their share."""
    nodes, offenders = all_parts.nodes, all_parts.offenders
    if offenders is None:
        return (which * nodes).astype(int)
    bad, _, _ = offenders.scale(nodes)
    share = bad * offenders.factor / (bad * offenders.factor + nodes - bad)
    is_bad = _bad_nodes(nodes, bad)
    good_ones = np.flatnonzero(~is_bad) if bad < nodes else np.arange(nodes)
    bad_ones = np.flatnonzero(is_bad)
    return np.where(
        chosen < share,
        bad_ones[(which * len(bad_ones)).astype(int)],
        good_ones[(which * len(good_ones)).astype(int)],
    )


def _bad_nodes(nodes: int, bad: int) -> np.ndarray:
    marks = np.zeros(nodes, dtype=bool)
    marks[np.arange(bad) * nodes // bad] = True
    return marks


def _renewed(parts: Parts, all_parts: Failures, random: np.random.Generator) -> Iterator[Failure]:
    """Weibull gaps: each part has its own next failure. Windows are as long as some `_BATCH` failures take."""
    nodes, offenders = all_parts.nodes, all_parts.offenders
    node = np.arange(parts.count) * nodes // parts.count
    scale = np.full(parts.count, parts.mtbf / gamma(1.0 + 1.0 / parts.shape))
    if offenders is not None:
        bad, good_scale, bad_scale = offenders.scale(nodes)
        scale *= np.where(_bad_nodes(nodes, bad)[node], bad_scale, good_scale)
    used = (parts.burn_in / scale) ** parts.shape
    upcoming = scale * (used + random.exponential(1.0, parts.count)) ** (1.0 / parts.shape) - parts.burn_in
    window, end = _BATCH * parts.mtbf / parts.count, 0.0
    while True:
        end += window
        times: list[np.ndarray] = []
        places: list[np.ndarray] = []
        while len(due := np.flatnonzero(upcoming < end)):
            times.append(upcoming[due])
            places.append(node[due])
            upcoming[due] += scale[due] * random.exponential(1.0, len(due)) ** (1.0 / parts.shape)
        if times:
            found = np.concatenate(times)
            order = np.argsort(found, kind="stable")
            yield from _told(parts, found[order], np.concatenate(places)[order], random)


def _repeated(gaps: Sequence[float], random: np.random.Generator) -> Iterator[Failure]:
    """Gaps drawn with replacement from those that were given; only one of them: always that."""
    now, known = 0.0, np.array(gaps)
    job = Parts("job", 1, float(known.mean()))
    while True:
        times = now + np.cumsum(known[random.integers(len(known), size=_BATCH)])
        now = float(times[-1])
        yield from _told(job, times, np.full(_BATCH, -1), random)


def _told(parts: Parts, times: np.ndarray, nodes: np.ndarray, random: np.random.Generator) -> Iterator[Failure]:
    marks, cause = random.random((len(times), 4)).tolist(), parts.cause
    nowhere = cause not in TAKES_NODE
    for time, node, mark in zip(times.tolist(), nodes.tolist(), marks):
        yield Failure(time, cause, -1 if nowhere else node, tuple(mark))


def _without_excluded(failures: Iterator[Failure], all_parts: Failures) -> Iterator[Failure]:
    """Failures of bad nodes thin out to those of a good one once the node has been replaced."""
    offenders = all_parts.offenders
    bad, _, _ = offenders.scale(all_parts.nodes)
    is_bad, seen = _bad_nodes(all_parts.nodes, bad).tolist(), {}
    for failure in failures:
        node = failure.node
        if offenders.exclude_after is not None and node >= 0 and is_bad[node]:
            count = seen.get(node, 0)
            if count >= offenders.exclude_after and failure.marks[3] * offenders.factor >= 1.0:
                continue
            seen[node] = count + 1
        yield failure
