"""Tensor-parallel exchanges at the ends of a sublayer, as the fields of `Linear`."""

from math import ceil

from llmsim.model.shard import Shard
from llmsim.model.work import Communication


def whole(rows: float) -> int:
    """Rows of a GEMM: a share that does not divide evenly is rounded up, as the busiest rank sees it."""
    return ceil(rows - 1e-9)


def column_entry(shard: Shard, width: float) -> dict[str, Communication]:
    """Before a column-parallel linear whose input is `width` wide.

    Without sequence parallelism the input is there already, and its gradient is all-reduced (Megatron's f); with it
    the input is all-gathered, once more for the weight gradient (unless it was kept), and its gradient
    reduce-scattered.
    """
    if shard.tp == 1:
        return {}
    values = shard.tokens * width
    if not shard.sequence_parallel:
        return {"entry_grad": Communication("all_reduce", "tp", values * shard.element)}
    gather = Communication("all_gather", "tp", values * shard.gathered_element)
    scatter = Communication("reduce_scatter", "tp", values * shard.element)
    again = {"regather": gather} if shard.regather else {}
    return {"entry": gather, "entry_grad": scatter} | again


def row_exit(shard: Shard, width: float) -> dict[str, Communication]:
    """After a row-parallel linear whose output is `width` wide: all-reduce (g), or reduce-scatter and back."""
    if shard.tp == 1:
        return {}
    values = shard.tokens * width
    if not shard.sequence_parallel:
        return {"exit": Communication("all_reduce", "tp", values * shard.element)}
    scatter = Communication("reduce_scatter", "tp", values * shard.element)
    gather = Communication("all_gather", "tp", values * shard.gathered_element)
    return {"exit": scatter, "exit_grad": gather}
