"""What follows the backward passes: gradient reduction over data parallel ranks, the optimizer, parameter gathering."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from llmsim.model.work import Communication, Step
from llmsim.program.stages.shares import Shares


def reduction_steps(
    shares: Shares, grad_bytes: int, scatter: bool, shard: tuple[float, float] | None = None
) -> list[Step]:
    """Gradient reduction of one bucket: a reduce-scatter, of which each rank gets its share, or an all-reduce.

    shard: ranks of a shard group, of dense parameters and of experts, where states are sharded within those only
    (HSDP): a reduce-scatter among them, and an all-reduce of each share over the ranks that hold the same one.
    """
    operation = "reduce_scatter" if scatter else "all_reduce"
    if scatter and shard is not None:
        dense, expert = shard
        reductions = [("reduce_scatter", "shard", shares.dense), ("all_reduce", "replica", shares.dense / dense)]
        reductions += [("reduce_scatter", "eshard", shares.expert), ("all_reduce", "ereplica", shares.expert / expert)]
    else:
        reductions = [(operation, "dp", shares.dense), (operation, "edp", shares.expert)]
    return [
        Step(f"gradient {name.replace('_', '-')}", Communication(name, group, size * grad_bytes), "dp", "backward")
        for name, group, size in reductions
        if size > 0
    ]


_MATRICES = 4  # of a layer: a matrix is never cut


def in_messages(steps: Sequence[Step], most: float | None, parts: int) -> list[Step]:
    """The communications of `parts` layers in equal messages of some `most` bytes, or a matrix (None: each whole)."""
    if most is None:
        return list(steps)
    result: list[Step] = []
    for step in steps:
        count = min(ceil(step.work.size / most), _MATRICES * parts)
        result += [replace(step, work=replace(step.work, size=step.work.size / count))] * count
    return result


def gather_steps(shares: Shares, param_bytes: int, group: str = "dp", expert_group: str = "edp") -> list[Step]:
    """All ranks get the parameters that the sharded optimizer has updated; over which groups they are sharded."""
    return [
        Step("parameter all-gather", Communication("all_gather", group, size * param_bytes), "dp", "update")
        for group, size in ((group, shares.dense), (expert_group, shares.expert))
        if size > 0
    ]


def buckets(sizes: Sequence[Shares], least: float) -> list[int]:
    """How many parts (in backward order) each bucket takes, so that it holds at least `least` parameters."""
    counts, filled, taken = [], 0.0, 0
    for share in sizes:
        filled += share.total
        taken += 1
        if filled >= least:
            counts.append(taken)
            filled, taken = 0.0, 0
    if taken:
        counts.append(taken)
    return counts
