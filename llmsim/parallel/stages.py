"""Which layers each virtual pipeline stage holds."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from llmsim.errors import ScenarioError


def split_layers(layers: int, stages: int, given: Sequence[int] | None = None) -> tuple[tuple[int, ...], ...]:
    """Layer numbers of each virtual stage, in order: `given` counts, or equal ones.

    Raises `ScenarioError` when the layers do not fit the stages.
    """
    counts = list(given) if given is not None else [layers // stages] * stages
    if len(counts) != stages:
        raise ScenarioError(f"stage_layers has {len(counts)} entries; expected one for each of {stages} virtual stages")
    if sum(counts) != layers:
        raise ScenarioError(
            f"{layers} layers cannot be split over {stages} stages as {counts}; the sum must be {layers}"
        )
    result, first = [], 0
    for count in counts:
        result.append(tuple(range(first, first + count)))
        first += count
    return tuple(result)


@lru_cache(maxsize=1024)
def balance_layers(costs: tuple[float, ...], stages: int, first: float = 0.0, last: float = 0.0) -> tuple[int, ...]:
    """How many layers each virtual stage holds so that the slowest one is as fast as it can be.

    costs: time of each layer, in order. first, last: what the first stage does besides (the embedding) and the last
    (the head). Every stage holds a layer where there are enough. Among the splits with the same slowest stage it is
    the one with the least sum of squares, which is the most even.
    """
    starts = np.concatenate(([0.0], np.cumsum(costs)))
    fewest = 1 if len(costs) >= stages else 0
    # spans[begin, end]: time of the layers from begin up to end.
    spans = starts[None, :] - starts[:, None]
    spans[np.subtract.outer(-np.arange(len(starts)), -np.arange(len(starts))) < fewest] = np.inf
    extras = np.zeros(stages)
    extras[0] += first
    extras[-1] += last
    slowest, _ = _best_ends([spans + extra for extra in extras], np.maximum)
    limit = slowest * (1 + 1e-9)
    squares = [np.where(spans + extra <= limit, (spans + extra) ** 2, np.inf) for extra in extras]
    _, ends = _best_ends(squares, np.add)
    return tuple(end - begin for begin, end in pairwise([0, *ends]))


def _best_ends(costs: Sequence[np.ndarray], join: np.ufunc) -> tuple[float, list[int]]:
    """Least joined cost of consecutive stages, and where each ends; costs[stage][begin, end]. Dynamic programming."""
    reached = np.full(len(costs[0]), np.inf)
    reached[0] = 0.0
    begins = []
    for cost in costs:
        joined = join(reached[:, None], cost)
        begins.append(joined.argmin(axis=0))
        reached = joined.min(axis=0)
    ends = [len(reached) - 1]
    for begin in reversed(begins[1:]):
        ends.insert(0, int(begin[ends[0]]))
    return float(reached[-1]), ends
