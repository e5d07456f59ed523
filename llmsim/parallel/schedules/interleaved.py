"""Interleaved 1F1B: v chunks a rank, so that warm-up and drain pass v times smaller pieces.

Megatron-LM (Narayanan et al. 2021, arXiv 2104.04473, section 2.2 and figure 4 bottom) works through
micro-batches in groups of p, and needs m to be a multiple of p. Otherwise the groups are those of
torch.distributed.pipelining: the m micro-batches in max(1, floor(m / p)) equal groups. Both rules agree when
p divides m.
"""

from llmsim.errors import ScheduleError
from llmsim.parallel.schedules.order import Schedule, freeze, loop_placement


def check_interleaved(stages: int, micro_batches: int, chunks: int = 2) -> None:
    """Groups of micro-batches must be equal: m a multiple of max(1, floor(m / p)). Raises `ScheduleError`."""
    rounds = max(1, micro_batches // stages)
    if micro_batches % rounds:
        below, above = micro_batches // stages * stages, (micro_batches // stages + 1) * stages
        raise ScheduleError(
            f"interleaved cannot order {micro_batches} micro-batches over {stages} stages: they do not split "
            f"into {rounds} equal groups; expected a multiple of the stages, such as {below} or {above}"
        )


def interleaved(stages: int, micro_batches: int, chunks: int = 2) -> Schedule:
    """Virtual stage c p + r is chunk c of rank r. Raises `ScheduleError` for unequal groups."""
    check_interleaved(stages, micro_batches, chunks)
    group = micro_batches // max(1, micro_batches // stages)
    orders = (_order(stages, micro_batches, chunks, group, rank) for rank in range(stages))
    return Schedule("interleaved", stages, micro_batches, freeze(orders), loop_placement(stages, chunks))


def _order(p: int, m: int, v: int, g: int, r: int) -> list[tuple]:
    def op(kind: str, k: int) -> tuple:
        """The k-th forward or backward: g micro-batches through one chunk, then the same through the next."""
        chunk = k // g % v if kind == "F" else v - 1 - k // g % v
        return (kind, 0, chunk * p + r, k // (g * v) * g + k % g)

    total = m * v
    warm_up = min(2 * (p - 1 - r) + (v - 1) * g, total)
    ops = [op("F", k) for k in range(warm_up)]
    for k in range(total):
        if warm_up + k < total:
            ops.append(op("F", warm_up + k))
        ops.append(op("BW", k))
    return ops
