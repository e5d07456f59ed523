"""Forwards next to backwards: a schedule whose steady phase runs each pair as one block of two micro-batches.

Megatron-Core's combined 1F1B (--overlap-moe-expert-parallel-comm): the communication of one micro-batch's experts runs
beside the computation of the other. In a pipeline that needs the warm-up of interleaved 1F1B, two forwards more on each
rank than on the next one; with less, blocks of neighbouring ranks would take turns.
"""

from dataclasses import replace

from llmsim.parallel.schedules.order import Op, Schedule


def paired(schedule: Schedule) -> Schedule:
    """The schedule with the forwards that follow the warm-up of each rank joined to the backwards between them."""
    return replace(schedule, name=f"{schedule.name}, paired", orders=tuple(_paired(ops) for ops in schedule.orders))


def _paired(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    forwards = [op for op in ops if op[0] == "F"]
    backwards = [op for op in ops if op[0] == "BW"]
    warm = next((index for index, op in enumerate(ops) if op[0] != "F"), len(ops))
    blocks = [("FB", *f[1:], *b[1:]) for f, b in zip(forwards[warm:], backwards)]
    return (*forwards[:warm], *blocks, *backwards[len(blocks) :])
