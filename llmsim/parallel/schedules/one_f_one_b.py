"""1F1B: after a warm-up of p - 1 - r forwards, rank r alternates forward and backward.

PipeDream-Flush (Narayanan et al. 2021, arXiv 2006.09503) and Megatron-LM (arXiv 2104.04473, figure 4 top).
"""

from llmsim.parallel.schedules.order import Schedule, freeze, loop_placement


def one_f_one_b(stages: int, micro_batches: int, chunks: int = 1) -> Schedule:
    """The bubble of GPipe with at most p - r activations in flight on rank r."""
    orders = (_order(stages, micro_batches, rank) for rank in range(stages))
    return Schedule("1f1b", stages, micro_batches, freeze(orders), loop_placement(stages))


def _order(p: int, m: int, r: int) -> list[tuple]:
    warm_up = min(p - 1 - r, m)
    ops = [("F", 0, r, i) for i in range(warm_up)]
    for k in range(m):
        if warm_up + k < m:
            ops.append(("F", 0, r, warm_up + k))
        ops.append(("BW", 0, r, k))
    return ops
