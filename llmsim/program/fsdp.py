"""Fully sharded parameters (ZeRO-3, FSDP): each part is gathered before it computes and its gradients are scattered.

Zhao et al. 2023 (arXiv 2304.11277), section 3.3: the next part is gathered while this one computes; at most two are
gathered at a time. Gathers and scatters share one communicator, hence one stream, in the order they are issued.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmsim.model.work import Communication, MemoryBound, Step
from llmsim.program.gradients import Shares
from llmsim.program.passes import Pass


@dataclass(frozen=True, slots=True)
class Sharding:
    """Groups and element sizes. reshard false: what a forward has gathered stays for the whole iteration. replicas > 1:
    hybrid sharding, gradients are also reduced over `replica` groups.
    """

    group: str
    expert_group: str
    ranks: int
    expert_ranks: int
    replicas: int
    param_bytes: int
    grad_bytes: int
    flattened: bool = False  # gradients are copied into one tensor, cast and scaled before they are scattered
    reshard: bool = True


def sharded_forward(work: Pass, parameters: Sequence[Shares], sharding: Sharding, *, gather: bool = True) -> Pass:
    """A forward pass whose parts are gathered ahead of their use, unless they still are."""
    return _wrapped(work, parameters, sharding, gather=gather, scatter=False, phase="forward")


def sharded_backward(
    work: Pass, parameters: Sequence[Shares], sharding: Sharding, *, gather: bool = True, scatter: bool = True
) -> Pass:
    """A backward pass (parts in backward order): gathered again unless kept, gradients scattered unless accumulated."""
    return _wrapped(work, parameters, sharding, gather=gather, scatter=scatter, phase="backward")


def _gathers(share: Shares, sharding: Sharding, phase: str) -> list[Step]:
    sizes = (
        (sharding.group, share.dense, sharding.ranks),
        (sharding.expert_group, share.expert, sharding.expert_ranks),
    )
    return [
        Step("parameter all-gather", Communication("all_gather", group, size * sharding.param_bytes), "dp", phase)
        for group, size, ranks in sizes
        if size > 0 and ranks > 1
    ]


def _flattening(share: Shares, sharding: Sharding) -> list[Step]:
    """FSDP1 before it scatters (torch/distributed/fsdp/_runtime_utils.py): the views' gradients are joined into the
    flat parameter's, cast to the type that is reduced, and divided by the number of ranks."""
    if not sharding.flattened or sharding.ranks == 1:
        return []
    p, g = sharding.param_bytes, sharding.grad_bytes
    size = 2 * p + (p + g if p != g else 0) + 2 * g
    return [Step("flatten gradients", MemoryBound(share.total * size, kernels=3), "compute", "backward")]


def _scatters(share: Shares, sharding: Sharding) -> list[Step]:
    sizes = (
        (sharding.group, share.dense, sharding.ranks),
        (sharding.expert_group, share.expert, sharding.expert_ranks),
    )
    steps = [
        Step(
            "gradient reduce-scatter",
            Communication("reduce_scatter", group, size * sharding.grad_bytes),
            "dp",
            "backward",
        )
        for group, size, ranks in sizes
        if size > 0 and ranks > 1
    ]
    if sharding.replicas > 1:
        size = share.dense * sharding.grad_bytes / sharding.ranks
        steps.append(Step("gradient all-reduce", Communication("all_reduce", "replica", size), "dp", "backward"))
    return steps


def _wrapped(
    work: Pass, parameters: Sequence[Shares], sharding: Sharding, *, gather: bool, scatter: bool, phase: str
) -> Pass:
    """One part of steps wired as a whole: computation in order, communication issued one part ahead."""
    steps: list[Step] = []
    layers: list[int] = []
    ends: list[tuple[int, ...]] = []  # after which steps each part has been computed
    gathered: list[tuple[int, ...]] = []

    def issue(wanted: list[Step], after: tuple[int, ...], layer: int) -> tuple[int, ...]:
        for step in wanted:
            steps.append(replace(step, after=after))
            layers.append(layer)
            after = (len(steps) - 1,)
        return after if wanted else ()

    def prefetch(index: int) -> None:
        if index < len(work.parts):
            waits = ends[index - 2] if index >= 2 else ()
            wanted = _gathers(parameters[index], sharding, phase) if gather else []
            gathered.append(issue(wanted, waits, work.parts[index][0]))

    prefetch(0)
    for index, (layer, part) in enumerate(work.parts):
        prefetch(index + 1)
        before = ends[-1] if ends else ()
        base = len(steps)
        for place, step in enumerate(part):
            if step.after is None:
                after = (base + place - 1,) if place else (*before, *gathered[index])
            else:
                after = tuple(base + i for i in step.after)
            steps.append(replace(step, after=after))
            layers.append(layer)
        if scatter and part:
            issue(_flattening(parameters[index], sharding), (len(steps) - 1,), layer)
        ends.append((len(steps) - 1,) if part else before)
        if scatter:
            issue(_scatters(parameters[index], sharding), ends[-1], layer)
    return Pass(tuple(_runs(steps, layers)), closed=False, wired=True)


def _runs(steps: list[Step], layers: list[int]) -> list[tuple[int, tuple[Step, ...]]]:
    """One part a step, so that each keeps its layer number; indices are those of the whole pass."""
    return [(layer, (step,)) for step, layer in zip(steps, layers)]
