"""Fit the `achieved` constants of collectives to measured times, or try other values of them.

The choice of algorithm is made once, under the constants at the start; the fit is a coordinate descent in
factors, pulled towards its start so that constants that the rows say nothing about do not move.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from llmsim.catalogue.collective_constants import CATALOGUED, Achieved, Key
from llmsim.collectives.constants import constant_keys
from llmsim.collectives.group import Group
from llmsim.collectives.plan import plan_collective
from llmsim.collectives.registry import ALGORITHMS


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured collective: `time` in seconds, `source` the cluster or document it comes from."""

    operation: str
    size: float
    group: Group
    time: float
    source: str
    algorithm: str = "auto"

    def under(self, achieved: Achieved) -> "Sample":
        """The same measurement beside other constants."""
        return replace(self, group=replace(self.group, achieved=achieved))


def pooled() -> Achieved:
    """A start that knows no architecture or fabric: every table of siblings at its geometric mean."""
    values = {}
    for key in constant_keys():
        siblings = [CATALOGUED.value(k) for k in CATALOGUED.paths() if len(key) > 1 and k[:-1] == key[:-1]]
        known = [value for value in siblings if value > 0] or [CATALOGUED.value(key)]
        values[key] = math.exp(sum(map(math.log, known)) / len(known))
    return Achieved.of(values)


class Fit:
    """Samples, the algorithms that NCCL chooses for them, and which of the constants each one's time depends on."""

    def __init__(
        self, samples: Sequence[Sample], keys: Sequence[Key] | None = None, start: Achieved = CATALOGUED
    ) -> None:
        self.samples = samples
        self.keys = list(keys or constant_keys())
        self.start = {key: start.value(key) for key in {*self.keys, *(key for key, _ in start.changed)}}
        plans = [plan_collective(s.operation, s.size, s.group, s.algorithm) for s in samples]
        self.chosen = [(ALGORITHMS[p.algorithm].plan, p.protocol) for p in plans]
        self.touched = {key: self._touched(key) for key in self.keys}

    def _times(self, which: Iterable[int], values: Mapping[Key, float]) -> dict[int, float]:
        """Seconds of some samples under these constants."""
        achieved, found = Achieved.of(values), {}
        for i in which:
            sample, (plan, protocol) = self.samples[i], self.chosen[i]
            phases, _ = plan(sample.operation, sample.size, replace(sample.group, achieved=achieved), protocol)
            found[i] = sum(p.repeat * (p.latency + p.seconds) for p in phases)
        return found

    def _touched(self, key: Key) -> list[int]:
        """Numbers of the samples whose time changes when a constant is halved or doubled."""
        everywhere = range(len(self.samples))
        now, less, more = (
            self._times(everywhere, self.start | {key: self.start[key] * factor}) for factor in (1.0, 0.5, 2.0)
        )
        return [i for i in everywhere if now[i] != less[i] or now[i] != more[i]]

    def run(self, without: str = "", rounds: int = 8, pull: float = 0.0008) -> dict[Key, float]:
        """Constants that fit the samples, from the start; `pull` is the cost of moving one by a factor e.

        without: a source whose samples do not count.
        """
        weights = self._weights(without)
        now, steps = dict(self.start), dict.fromkeys(self.keys, 0.12)
        losses = self._losses(weights, weights, now)
        for _ in range(rounds):
            for key in (k for k in self.keys if steps[k] > 0.015):
                counted = [i for i in self.touched[key] if i in weights]
                better, present = False, sum(losses[i] for i in counted)
                for factor in (1 + steps[key], 1 / (1 + steps[key])) if counted else ():
                    value = now[key] * factor
                    away = abs(math.log(value / self.start[key])) - abs(math.log(now[key] / self.start[key]))
                    tried = self._losses(counted, weights, now | {key: value})
                    if sum(tried.values()) + pull * away < present - 1e-6:
                        losses |= tried
                        better, now[key] = True, value
                        break
                steps[key] = min(0.3, steps[key] * 1.3) if better else steps[key] / 2
        return now

    def _weights(self, without: str) -> dict[int, float]:
        """By sample. A source of many rows counts more than one of few, but not in proportion."""
        counts = Counter(s.source for s in self.samples)
        weights = {i: counts[s.source] ** -0.4 for i, s in enumerate(self.samples) if s.source != without}
        total = sum(weights.values())
        return {i: weight / total for i, weight in weights.items()}

    def _losses(
        self, which: Iterable[int], weights: Mapping[int, float], values: Mapping[Key, float]
    ) -> dict[int, float]:
        """|log(model/measured)| by sample, weighted, steeper beyond 15 % and capped at 80 % for outliers."""
        found = {}
        for i, seconds in self._times(which, values).items():
            error = min(abs(math.log(seconds / self.samples[i].time)), 0.8)
            found[i] = weights[i] * (error + 0.6 * max(0.0, error - 0.15))
        return found
