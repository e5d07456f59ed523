"""Fully sharded parameters (ZeRO-3, FSDP): each part is gathered before it computes and its gradients are scattered.

Zhao et al. 2023 (arXiv 2304.11277), section 3.3: the next part is gathered while this one computes; at most two are
gathered at a time. Gathers and scatters share one communicator, hence one stream, in the order they are issued.
"""

from dataclasses import dataclass

from llmsim.model.work import Communication, MemoryBound, Step
from llmsim.program.stages.shares import Shares


@dataclass(frozen=True, slots=True)
class Sharding:
    """Groups and element sizes.

    reshard false: what a forward has gathered stays for the whole iteration. prefetch false: a part is gathered when
    the one before it is done. awaited: the next part waits for the scatter. flattened: gradients are copied into one
    tensor, cast and scaled before they are scattered. replicas, expert_replicas > 1: hybrid sharding, gradients are
    also reduced over `replica` and `ereplica` groups.
    """

    group: str
    expert_group: str
    ranks: int
    expert_ranks: int
    replicas: int
    expert_replicas: int
    param_bytes: int
    grad_bytes: int
    flattened: bool = False
    reshard: bool = True
    prefetch: bool = True
    awaited: bool = False

    def shard(self, share: Shares) -> float:
        """Parameters of one rank's part of what ranks share."""
        return share.dense / self.ranks + share.expert / self.expert_ranks


def gathers(share: Shares, sharding: Sharding, phase: str) -> list[Step]:
    """What brings one part's parameters together."""
    sizes = (
        (sharding.group, share.dense, sharding.ranks),
        (sharding.expert_group, share.expert, sharding.expert_ranks),
    )
    return [
        Step("parameter all-gather", Communication("all_gather", group, size * sharding.param_bytes), "dp", phase)
        for group, size, ranks in sizes
        if size > 0 and ranks > 1
    ]


def flattening(share: Shares, sharding: Sharding) -> list[Step]:
    """FSDP1 before it scatters (torch/distributed/fsdp/_runtime_utils.py): the views' gradients are joined into the
    flat parameter's, cast to the type that is reduced, and divided by the number of ranks."""
    if not sharding.flattened or sharding.ranks == 1 or not share.total:
        return []
    p, g = sharding.param_bytes, sharding.grad_bytes
    size = 2 * p + (p + g if p != g else 0) + 2 * g
    return [Step("flatten gradients", MemoryBound(share.total * size, kernels=3), "compute", "backward")]


def scatters(share: Shares, sharding: Sharding) -> list[Step]:
    """What leaves each rank its share of one part's gradients."""
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
    copies = (
        ("replica", share.dense / sharding.ranks, sharding.replicas),
        ("ereplica", share.expert / sharding.expert_ranks, sharding.expert_replicas),
    )
    return steps + [
        Step("gradient all-reduce", Communication("all_reduce", group, size * sharding.grad_bytes), "dp", "backward")
        for group, size, replicas in copies
        if size > 0 and replicas > 1
    ]
