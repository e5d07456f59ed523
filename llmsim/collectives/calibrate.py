"""Fit the `achieved` constants of collectives to measured times, or try other values of them.

The choice of algorithm does not depend on these constants, so it is made once; the fit is a coordinate descent in
factors, pulled towards its start so that constants that the rows say nothing about do not move.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives import achieved
from llmsim.collectives.group import Group
from llmsim.collectives.plan import plan_collective
from llmsim.collectives.registry import ALGORITHMS

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured collective: `time` in seconds, `source` the cluster or document it comes from."""

    operation: str
    size: float
    group: Group
    time: float
    source: str
    algorithm: str = "auto"


def constant_keys() -> list[Key]:
    """Paths of the numbers under `achieved` that are not zero."""
    return list(_leaves(collective_constants()["achieved"]))


def _leaves(table: dict, path: Key = ()) -> Iterator[Key]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        elif isinstance(value, float | int) and value:
            yield (*path, key)


def _holder(key: Key) -> dict:
    table = collective_constants()["achieved"]
    for part in key[:-1]:
        table = table[part]
    return table


def _put(values: dict[Key, float]) -> None:
    for key, value in values.items():
        _holder(key)[key[-1]] = value
    achieved.port_rate.cache_clear()
    achieved.network_rate.cache_clear()


@contextmanager
def constants(values: dict[Key, float]) -> Iterator[None]:
    """Other values of some constants while the block runs; plans made before stay as they are."""
    if not values:
        yield
        return
    before = {key: _holder(key)[key[-1]] for key in values}
    plan_collective.cache_clear()
    _put(values)
    try:
        yield
    finally:
        _put(before)
        plan_collective.cache_clear()


def pooled() -> dict[Key, float]:
    """A start that knows no architecture or fabric: every table of siblings at its geometric mean."""
    values = {}
    for key in constant_keys():
        siblings = [v for v in _holder(key).values() if isinstance(v, float | int) and v > 0]
        alike = len(key) > 1
        mean = math.exp(sum(map(math.log, siblings)) / len(siblings)) if alike else _holder(key)[key[-1]]
        values[key] = mean
    return values


class Fit:
    """Samples, the algorithms that NCCL chooses for them, and which of the constants each one's time depends on."""

    def __init__(self, samples: Sequence[Sample], keys: Sequence[Key] | None = None) -> None:
        self.samples = samples
        self.keys = list(keys or constant_keys())
        plans = [plan_collective(s.operation, s.size, s.group, s.algorithm) for s in samples]
        self.chosen = [(ALGORITHMS[p.algorithm].plan, p.protocol) for p in plans]
        self.touched = {key: self._touched(key) for key in self.keys}

    def _time(self, i: int) -> float:
        sample, (plan, protocol) = self.samples[i], self.chosen[i]
        phases, _ = plan(sample.operation, sample.size, sample.group, protocol)
        return sum(p.repeat * (p.latency + p.seconds) for p in phases)

    def _touched(self, key: Key) -> list[int]:
        """Numbers of the samples whose time changes when a constant is halved or doubled."""
        value, times = _holder(key)[key[-1]], []
        for factor in (1.0, 0.5, 2.0):
            _put({key: value * factor})
            times.append([self._time(i) for i in range(len(self.samples))])
        _put({key: value})
        return [i for i, (now, less, more) in enumerate(zip(*times)) if now != less or now != more]

    def run(self, without: str = "", rounds: int = 8, pull: float = 0.0008) -> dict[Key, float]:
        """Constants that fit the samples, from the present ones; `pull` is the cost of moving one by a factor e.

        without: a source whose samples do not count.
        """
        weights = self._weights(without)
        first = {key: _holder(key)[key[-1]] for key in self.keys}
        now, steps = dict(first), dict.fromkeys(self.keys, 0.12)
        losses = self._losses(weights, weights)
        try:
            for _ in range(rounds):
                for key in (k for k in self.keys if steps[k] > 0.015):
                    counted = [i for i in self.touched[key] if i in weights]
                    better, present = False, sum(losses[i] for i in counted)
                    for factor in (1 + steps[key], 1 / (1 + steps[key])) if counted else ():
                        value = now[key] * factor
                        away = abs(math.log(value / first[key])) - abs(math.log(now[key] / first[key]))
                        _put({key: value})
                        tried = self._losses(counted, weights)
                        if sum(tried.values()) + pull * away < present - 1e-6:
                            losses |= tried
                            better, now[key] = True, value
                            break
                    _put({key: now[key]})
                    steps[key] = min(0.3, steps[key] * 1.3) if better else steps[key] / 2
        finally:
            _put(first)
        return now

    def _weights(self, without: str) -> dict[int, float]:
        """By sample. A source of many rows counts more than one of few, but not in proportion."""
        counts = Counter(s.source for s in self.samples)
        weights = {i: counts[s.source] ** -0.4 for i, s in enumerate(self.samples) if s.source != without}
        total = sum(weights.values())
        return {i: weight / total for i, weight in weights.items()}

    def _losses(self, which: Iterable[int], weights: Mapping[int, float]) -> dict[int, float]:
        """|log(model/measured)| by sample, weighted, steeper beyond 15 % and capped at 80 % for outliers."""
        found = {}
        for i in which:
            error = min(abs(math.log(self._time(i) / self.samples[i].time)), 0.8)
            found[i] = weights[i] * (error + 0.6 * max(0.0, error - 0.15))
        return found
