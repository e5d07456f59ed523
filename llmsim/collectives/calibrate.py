"""Fit the `achieved` constants of collectives to measured times, or try other values of them.

The choice of algorithm does not depend on these constants, so it is made once; the fit is a coordinate descent in
factors, pulled towards its start so that constants that the rows say nothing about do not move.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
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


class _Model:
    """Times of the samples under the constants of the moment, the algorithms chosen once."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        plans = [plan_collective(s.operation, s.size, s.group, s.algorithm) for s in samples]
        self.chosen = [(ALGORITHMS[p.algorithm].plan, p.protocol) for p in plans]
        counts = Counter(s.source for s in samples)
        # A source of many rows counts more than one of few, but not in proportion.
        self.weights = [counts[s.source] ** -0.4 for s in samples]
        self.total = sum(self.weights)

    def loss(self) -> float:
        """Weighted mean of |log(model/measured)|, steeper beyond 15 % and capped at 80 % for outliers."""
        total = 0.0
        for sample, (plan, protocol), weight in zip(self.samples, self.chosen, self.weights):
            phases, _ = plan(sample.operation, sample.size, sample.group, protocol)
            error = abs(math.log(sum(p.repeat * (p.latency + p.seconds) for p in phases) / sample.time))
            error = min(error, 0.8)
            total += weight * (error + 0.6 * max(0.0, error - 0.15))
        return total / self.total


def fit(
    samples: Sequence[Sample], keys: Sequence[Key] | None = None, rounds: int = 8, pull: float = 0.0008
) -> dict[Key, float]:
    """Constants that fit the samples, from the present ones; `pull` is the cost of moving one by a factor e."""
    model = _Model(samples)
    keys = list(keys or constant_keys())
    first = {key: _holder(key)[key[-1]] for key in keys}
    now, steps = dict(first), dict.fromkeys(keys, 0.12)
    best = model.loss()
    try:
        for _ in range(rounds):
            for key in (k for k in keys if steps[k] > 0.015):
                better = False
                for factor in (1 + steps[key], 1 / (1 + steps[key])):
                    value = now[key] * factor
                    away = abs(math.log(value / first[key])) - abs(math.log(now[key] / first[key]))
                    _put({key: value})
                    loss = model.loss()
                    if loss + pull * away < best - 1e-6:
                        best, better = loss, True
                        now[key] = value
                        break
                _put({key: now[key]})
                steps[key] = min(0.3, steps[key] * 1.3) if better else steps[key] / 2
    finally:
        _put(first)
    return now
