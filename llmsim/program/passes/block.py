"""A run of steps as one event: its length, what it demands, and how runs add up side by side or in series."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from llmsim.engine.plan import Fragment
from llmsim.program.passes.fragments import Template
from llmsim.program.passes.labels import CATEGORIES


@dataclass(frozen=True, slots=True)
class Block:
    """A run of steps played alone. Demands are by place in the class's list of resources; shares add up to 1."""

    seconds: float
    demands: tuple[tuple[int, float], ...]
    shares: tuple[float, ...]  # seconds of each of CATEGORIES, then idle
    flops: float
    peak_seconds: float
    bytes: float
    sent: tuple[tuple[str, float, float], ...]  # as `Label.sent`
    hidden: tuple[tuple[str, float, float], ...]  # as `Label.hidden`


NOTHING = Template((("compute", Fragment(())),), 0)


def in_series(blocks: list[Block]) -> Block:
    seconds = sum(block.seconds for block in blocks)
    demands: dict[int, float] = {}
    shares = np.zeros(len(CATEGORIES) + 1)
    for block in blocks:
        weight = block.seconds / seconds if seconds else 0.0
        shares += np.array(block.shares) * weight
        for place, amount in block.demands:
            demands[place] = demands.get(place, 0.0) + amount * weight
    return Block(
        seconds,
        tuple(sorted(demands.items())),
        tuple(shares.tolist()),
        sum(block.flops for block in blocks),
        sum(block.peak_seconds for block in blocks),
        sum(block.bytes for block in blocks),
        together(block.sent for block in blocks),
        together(block.hidden for block in blocks),
    )


def together(parts: Iterable[tuple[tuple[str, float, float], ...]]) -> tuple[tuple[str, float, float], ...]:
    """Both numbers summed by group."""
    total: dict[str, tuple[float, float]] = {}
    for group, inside, outside in (entry for part in parts for entry in part):
        before = total.get(group, (0.0, 0.0))
        total[group] = (before[0] + inside, before[1] + outside)
    return tuple((group, *amounts) for group, amounts in sorted(total.items()))
