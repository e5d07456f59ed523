"""zb-auto: the best split-backward order found for measured times under a memory limit.

The Zero Bubble paper's ZB-1p and ZB-2p (Qi et al. 2024, arXiv 2401.10241, section 3) are such searches with
limits of p and 2p activations. Here every candidate is played by the evaluator, and zb-h1 (or 1f1b, where
zb-h1 does not fit) is always among them, so the result is never worse.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from llmsim.errors import ScheduleError
from llmsim.parallel.schedules.evaluate import Timeline, Times, evaluate, stage_times
from llmsim.parallel.schedules.greedy import Costs, Policy, greedy_orders
from llmsim.parallel.schedules.one_f_one_b import one_f_one_b
from llmsim.parallel.schedules.order import Orders, Schedule, loop_placement
from llmsim.parallel.schedules.zb_h1 import lagged_orders, zb_h1


def search(
    stages: int,
    micro_batches: int,
    chunks: int = 1,
    forward: Times = 1.0,
    backward: Times = 1.0,
    weight: Times = 1.0,
    comm: Times = 0.0,
    memory_limit: float | Sequence[float] | None = None,
    activation: float = 1.0,
    weight_activation: float | None = None,
    objective: str = "makespan",
) -> Schedule:
    """The order with the smallest makespan (or span) among those that keep the memory limit on every rank.

    forward, backward, weight, comm: as `evaluate` takes them. memory_limit: per rank, or one for all, in
    micro-batch activations of a stage; None is p, what 1F1B needs on rank 0. activation, weight_activation:
    what a micro-batch holds from F to B, and from B to W (M_B and M_W of the paper); the same when None.
    Raises `ScheduleError`.
    """
    if objective not in _OBJECTIVES:
        raise ScheduleError(f"objective: {objective!r} is not known; expected {' or '.join(_OBJECTIVES)}")
    p, m = stages, micro_batches
    costs = _costs(p, stage_times(p, forward, backward, weight, comm), memory_limit, activation, weight_activation)

    def play(orders: Orders) -> Timeline:
        schedule = Schedule("zb-auto", p, m, orders, loop_placement(p))
        return evaluate(schedule, costs.forward, costs.backward, costs.weight, costs.comm)

    best = first = play(_fallback(p, m, costs))
    seen = {first.schedule.orders}
    for orders in _candidates(p, m, costs):
        if orders in seen or not fits(orders, costs):
            continue
        seen.add(orders)
        played = play(orders)
        gains = _OBJECTIVES[objective](played) < _OBJECTIVES[objective](best)
        # A shorter span must not be bought with a longer makespan, nor the other way round.
        if gains and _worst(played, first) <= 1 + 1e-12:
            best = played
    return best.schedule


_OBJECTIVES = {
    "makespan": lambda played: (played.makespan, played.span.max()),
    "span": lambda played: (played.span.max(), played.makespan),
}


def _worst(played: Timeline, first: Timeline) -> float:
    """The larger of the two ratios of makespan and of span to those of the order that is always possible."""
    pairs = ((played.makespan, first.makespan), (played.span.max(), first.span.max()))
    return max(new / old if old else 1.0 for new, old in pairs)


def fits(orders: Orders, costs: Costs) -> bool:
    """Whether every rank keeps its memory limit all the time."""
    held_forward, held_weight = costs.held_forward, costs.held_weight
    change = {"F": held_forward, "B": held_weight - held_forward, "W": -held_weight, "BW": -held_forward}
    for ops, limit in zip(orders, costs.limit):
        held = 0.0
        for op in ops:
            held += change[op[0]]
            if held > limit * (1 + 1e-9):
                return False
    return True


def _fallback(p: int, m: int, costs: Costs) -> Orders:
    """zb-h1 where it fits, else 1f1b, else 1F1B with as few micro-batches in flight as the limit asks for."""
    for orders in (zb_h1(p, m).orders, one_f_one_b(p, m).orders):
        if fits(orders, costs):
            return orders
    return lagged_orders(m, *_lagged(p, costs, 1.0))


def _candidates(p: int, m: int, costs: Costs) -> Iterator[Orders]:
    """Orders to try: fixed patterns with steeper warm-ups and greedy ones; fewer for large pipelines."""
    small = 3 * p * m <= 8000
    yield one_f_one_b(p, m).orders
    for slope in (1.0, 1.5, 2.0, 2.25, 2.5) if small else (1.0, 2.0):
        warm_ups, lags = _lagged(p, costs, slope)
        yield lagged_orders(m, warm_ups, lags)
        for patience in (1.0, 0.75, 0.5, 0.25, 0.0) if small else (1.0, 0.5, 0.0):
            yield greedy_orders(p, m, costs, Policy(tuple(warm_ups), patience))


def _lagged(p: int, costs: Costs, slope: float) -> tuple[list[int], list[int]]:
    """Warm-up forwards that grow by `slope` from rank to rank, and the W lag that the limit leaves."""
    warm_ups, lags = [], []
    for r, limit in enumerate(costs.limit):
        # A rank must not wait for more forwards than the rank before it lets out ahead of its first backward.
        most = int(limit / costs.held_forward * (1 + 1e-9))
        warm_up = min(int(slope * (p - 1 - r)), most - 1, *warm_ups[-1:])
        spare = limit * (1 + 1e-9) - (warm_up + 1) * costs.held_forward
        warm_ups.append(warm_up)
        lags.append(int(spare / costs.held_weight) if costs.held_weight else p)
    return warm_ups, lags


def _costs(
    p: int,
    times: dict[str, list[float]],
    memory_limit: float | Sequence[float] | None,
    activation: float,
    weight_activation: float | None,
) -> Costs:
    left = activation if weight_activation is None else weight_activation
    if not 0 < activation < float("inf"):
        raise ScheduleError(f"activation: {activation} is not possible; expected a number above 0")
    if not 0 <= left <= activation:
        raise ScheduleError(f"weight_activation: {left} is not possible; expected 0 to activation, {activation}")
    given = p * activation if memory_limit is None else memory_limit
    limit = [float(given)] * p if np.ndim(given) == 0 else [float(x) for x in given]
    if len(limit) != p:
        raise ScheduleError(f"memory_limit: {len(limit)} limits given; expected one, or one for each of {p} stages")
    for rank, value in enumerate(limit):
        if not value >= activation:
            raise ScheduleError(
                f"memory_limit: {value:g} on rank {rank} does not hold one micro-batch; "
                f"expected at least its activation, {activation:g}"
            )
    return Costs(times["F"], times["B"], times["W"], times["comm"], limit, activation, left)
