"""ZB-H1: 1F1B with the backward split, weight gradients held back to fill the drain.

Qi, Wan, Huang and Lin 2024, "Zero Bubble Pipeline Parallelism" (arXiv 2401.10241), section 2 and figure 3 top.
Every rank holds p activations, what 1F1B's first rank does.
"""

from collections.abc import Sequence

from llmsim.parallel.schedules.order import Orders, Schedule, freeze, loop_placement


def zb_h1(stages: int, micro_batches: int, chunks: int = 1) -> Schedule:
    """Warm-up p - 1 - r forwards; W of micro-batch k - r after B of micro-batch k."""
    p = stages
    orders = lagged_orders(micro_batches, [p - 1 - r for r in range(p)], list(range(p)))
    return Schedule("zb-h1", p, micro_batches, orders, loop_placement(p))


def lagged_orders(micro_batches: int, warm_ups: Sequence[int], lags: Sequence[int]) -> Orders:
    """1F1B order with split backward: on each rank a number of warm-up forwards, and how far W lags behind B.

    At most warm_up + 1 + lag activations are in flight until W, warm_up + 1 until B.
    """
    return freeze(_order(micro_batches, r, warm_up, lag) for r, (warm_up, lag) in enumerate(zip(warm_ups, lags)))


def _order(m: int, r: int, warm_up: int, lag: int) -> list[tuple]:
    warm_up = min(warm_up, m)
    ops = [("F", 0, r, i) for i in range(warm_up)]
    for k in range(m):
        if warm_up + k < m:
            ops.append(("F", 0, r, warm_up + k))
        ops.append(("B", 0, r, k))
        if k >= lag:
            ops.append(("W", 0, r, k - lag))
    return ops + [("W", 0, r, k) for k in range(max(0, m - lag), m)]
