"""DualPipe-V: DualPipe cut in half and folded at its middle, without a second copy of the parameters.

Published with github.com/deepseek-ai/DualPipe, after Sea AI Lab's "cut-in-half" remark. Rank r holds virtual
stages r and 2p - 1 - r: what DualPipe feeds from the other end is here the same micro-batch on its way back.
"""

from llmsim.errors import ScheduleError
from llmsim.parallel.schedules.dualpipe import two_phase_order
from llmsim.parallel.schedules.order import Schedule, freeze, v_placement


def check_dualpipe_v(stages: int, micro_batches: int, chunks: int = 2) -> None:
    """m >= 2p. Raises `ScheduleError`."""
    if micro_batches < 2 * stages:
        raise ScheduleError(
            f"dualpipe-v needs at least 2 micro-batches per stage; {micro_batches} over {stages} stages is "
            f"too few, expected at least {2 * stages}"
        )


def dualpipe_v(stages: int, micro_batches: int, chunks: int = 2) -> Schedule:
    """Phase 0 is the way down, phase 1 the way back. Raises `ScheduleError`."""
    check_dualpipe_v(stages, micro_batches)
    p = stages
    orders = (two_phase_order(p, r, micro_batches, ((0, r), (0, 2 * p - 1 - r))) for r in range(p))
    return Schedule("dualpipe-v", p, micro_batches, freeze(orders), v_placement(p))
