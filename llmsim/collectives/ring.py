"""Ring: every member passes blocks to its right-hand neighbour (Thakur, Rabenseifner & Gropp 2005, §4).

All-gather and reduce-scatter take n-1 steps of S/n bytes, all-reduce both: 2(n-1)(α + S/(n·B)). A broadcast is cut
into chunks that follow each other along the ring, so it takes its latency once per hop and S/B once.
"""

from math import floor

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives import achieved
from llmsim.collectives.channels import device_channels, filled_channels
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase, steps_of

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")


def ring_steps(operation: str, ranks: int) -> int:
    """Steps of a ring: 2(n-1) for all-reduce, n-1 otherwise."""
    return (2 if operation == "all_reduce" else 1) * (ranks - 1)


def ring_block(operation: str, size: float, ranks: int) -> float:
    """Bytes a member sends per step, so that steps x block is the operation's bus traffic."""
    return size / (ranks - 1) if operation == "broadcast" else size / ranks


def ring_bandwidth(group: Group, protocol: str, operation: str = "all_reduce") -> float:
    """Bus bandwidth in bytes/s: the scale-up port or the NICs of a node, whichever is slower."""
    c, nccl = group.achieved, collective_constants()["nccl"]
    rate = achieved.port_rate(group) if group.per_node > 1 else float("inf")
    if group.nodes > 1:
        rate = min(rate * c["ring_through_network"], achieved.network_rate(group))
    if protocol == "LL128":
        return c["ll128_share"] * rate
    if protocol == "LL":
        cap = nccl["ll_max"][group.architecture][min(group.nodes - 1, 2)] if group.nodes > 1 else float("inf")
        return min(c["ll_share"] * rate, cap, c["broadcast_ll_rate"] if operation == "broadcast" else cap)
    return rate


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of a ring on this group."""
    n, m = group.ranks, group.nodes
    filled = filled_channels(size, device_channels(group), protocol, n, ring=True)
    channels = floor(filled)
    bandwidth = ring_bandwidth(group, protocol, operation)
    block = ring_block(operation, size, n)
    begin = achieved.start(group, protocol, size)
    begin += achieved.own_copy(group, operation, protocol, block, bandwidth, filled)
    if protocol == "Simple":
        begin += achieved.fill(group, size, bandwidth)
    steps = ring_steps(operation, n)
    crossings = steps // (n - 1) * (m - 1)
    hop, crossing = achieved.hop(group, protocol), achieved.crossing(group, protocol, size)
    if protocol == "Simple" and operation != "broadcast" and m > 1:
        waited = min(1.0, channels * achieved.chunk() / block)  # of a longer block, chunk follows chunk
        hop += waited * achieved.network_step(group)
    if operation == "broadcast" and m == 1:
        hop /= steps  # words and slices stream through: one latency in all
    # Each channel leaves a node once, at another member: of n sends of a step, m cross.
    share = m / n if m > 1 else 0.0
    copied = 0.0 if operation == "broadcast" else 2 * block
    head = Phase(1, begin, 0.0, 0.0, 0.0, channels, copied)
    return (head, *steps_of(steps, crossings, block, bandwidth, hop, crossing, share, channels)), channels
