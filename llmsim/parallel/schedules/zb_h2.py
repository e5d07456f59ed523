"""ZB-H2: twice the warm-up and the memory of ZB-H1, and no rank idles after its first op when F = B = W.

Qi et al. 2024 (arXiv 2401.10241), section 2 and figure 3 bottom. The makespan still holds (p - 1) F, since
rank r starts r F late; steps that follow each other without a barrier recover it.
"""

from llmsim.parallel.schedules.order import Schedule, loop_placement
from llmsim.parallel.schedules.zb_h1 import lagged_orders


def zb_h2(stages: int, micro_batches: int, chunks: int = 1) -> Schedule:
    """Warm-up 2(p - 1 - r) forwards; W lags 2r micro-batches behind B."""
    p = stages
    orders = lagged_orders(micro_batches, [2 * (p - 1 - r) for r in range(p)], [2 * r for r in range(p)])
    return Schedule("zb-h2", p, micro_batches, orders, loop_placement(p))
