"""Kernel times that vary: every kernel takes its time by a factor of mean 1, drawn anew for each run of it.

A class of ranks is played by one of them, yet a collective waits for the slowest of all. What the others would have
taken is drawn too: between two meetings of a group the times of its members are sums of many kernels, about normal, so
the slowest of the g − 1 others is a normal quantile at U^(1/(g − 1)), U uniform. The representative waits where it is
not the slowest itself. What one kind of group has waited for passes on to the others as the mean and the variance of a
maximum: ranks of a tensor-parallel group are level after each collective, groups of them meet in data parallelism.
Unfolded, each rank draws for itself and nothing of this is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from llmsim.engine.plan import Fragment, Item, Lane, Op, Part
from llmsim.program.passes.labels import Label, Tag

_VARYING = ("compute", "optimizer")
_COMPUTING = ("compute", "beside")
ALL = "all"  # a kind of group: all ranks


@dataclass(slots=True)
class _Since:
    """Since the last meeting of one kind of group: mean and variance of the others' noise, and the own noise (s)."""

    mean: float = 0.0
    variance: float = 0.0
    own: float = 0.0


@dataclass(slots=True)
class _Drift:
    """How far members of one class may have drifted apart. members: by kind of group, those of the class in a group."""

    members: dict[str, int]
    rng: np.random.Generator
    since: dict[str, _Since]

    def kernel(self, seconds: float, deviation: float, factor: float) -> None:
        for entry in self.since.values():
            entry.variance += (seconds * deviation) ** 2
            entry.own += seconds * (factor - 1.0)

    def meet(self, kind: str) -> float:
        """Seconds that the representative waits for the slowest of its class in its group of this kind."""
        others = self.members.get(kind, 1) - 1
        if others < 1:
            return 0.0
        entry = self.since[kind]
        spread = entry.variance**0.5
        slowest = entry.mean + spread * NormalDist().inv_cdf(min(self.rng.random() ** (1.0 / others), 1 - 1e-15))
        wait = max(0.0, slowest - entry.own)
        mean, variance = _largest(others + 1)
        for name, other in self.since.items():
            if name != kind:
                other.mean += spread * mean
                other.variance = max(0.0, other.variance - entry.variance * (1.0 - variance))
                other.own += wait
        self.since[kind] = _Since()
        return wait


@lru_cache(maxsize=256)
def _largest(count: int) -> tuple[float, float]:
    """Mean and variance of the largest of `count` standard normal numbers."""
    quantiles = (np.arange(4096) + 0.5) / 4096
    values = np.array([NormalDist().inv_cdf(q) for q in quantiles ** (1.0 / count)])
    return float(values.mean()), float(values.var())


def jittered(
    lanes: Sequence[Lane],
    labels: Sequence[Label],
    tags: Sequence[Tag],
    members: Sequence[dict[str, int]],
    ranks: Sequence[int],
    deviation: float,
    seed: int,
) -> list[Lane]:
    """The lanes with kernel times that vary by the coefficient of variation `deviation`.

    members[class]: by kind of group, how many ranks of the class are in one group. ranks[class]: its representative.
    """
    result = []
    for lane in lanes:
        if lane.name not in _COMPUTING:
            result.append(lane)
            continue
        rng = np.random.default_rng([seed, ranks[lane.owner], _COMPUTING.index(lane.name)])
        kinds = members[lane.owner]
        drift = _Drift(kinds, rng, {kind: _Since() for kind in kinds})
        result.append(replace(lane, items=_varied(lane.items, labels, tags, drift, deviation)))
    return result


def _varied(
    items: Sequence[Item], labels: Sequence[Label], tags: Sequence[Tag], drift: _Drift, deviation: float
) -> list[Item]:
    shape = deviation**-2
    result, updating = [], False
    for item in items:
        update = bool(item.fragment.ops) and tags[item.tag].micro_batch < 0
        # Copies of the model meet once an iteration, where its gradients have been reduced.
        wait = drift.meet("dp") if update and not updating else 0.0
        updating = update or (updating and not item.fragment.ops)
        factors = drift.rng.gamma(shape, 1.0 / shape, len(item.fragment.ops)).tolist()
        ops = []
        for op, factor in zip(item.fragment.ops, factors):
            label = labels[op.label]
            if label.kind in _VARYING:
                drift.kernel(op.seconds, deviation, factor)
                op = _scaled(op, factor, wait)
            else:
                op = _scaled(op, 1.0, wait + (drift.meet(label.group) if label.group in drift.members else 0.0))
            ops.append(op)
            wait = 0.0
        if update:
            ops[-1] = _ended(ops[-1], drift.meet(ALL))  # an iteration is over when it is over for all
        result.append(item._replace(fragment=Fragment(tuple(ops), item.fragment.waits, item.fragment.signals)))
    return result


def _ended(op: Op, wait: float) -> Op:
    """The op, ended `wait` seconds later."""
    return op._replace(parts=(*op.parts, Part(1, wait, 0.0))) if wait else op


def _scaled(op: Op, factor: float, wait: float) -> Op:
    """The op `factor` times as long, begun `wait` seconds later."""
    if factor == 1.0 and wait == 0.0:
        return op
    first, *rest = (part._replace(latency=part.latency * factor, seconds=part.seconds * factor) for part in op.parts)
    if wait:
        rest = [first._replace(repeat=first.repeat - 1), *rest] if first.repeat > 1 else rest
        first = first._replace(repeat=1, latency=first.latency + wait)
    return op._replace(parts=(first, *rest))
