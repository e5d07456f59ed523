"""Ring: every member passes blocks to its right-hand neighbour (Thakur, Rabenseifner & Gropp 2005, §4).

All-gather and reduce-scatter take n-1 steps of S/n bytes, all-reduce both: 2(n-1)(α + S/(n·B)). A broadcast is cut
into chunks that follow each other along the ring, so it takes its latency once per hop and S/B once.
"""

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives import achieved
from llmsim.collectives.channels import device_channels, used_channels
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase, steps_of

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")


def ring_steps(operation: str, ranks: int) -> int:
    """Steps of a ring: 2(n-1) for all-reduce, n-1 otherwise."""
    return (2 if operation == "all_reduce" else 1) * (ranks - 1)


def ring_block(operation: str, size: float, ranks: int) -> float:
    """Bytes a member sends per step, so that steps x block is the operation's bus traffic."""
    return size / (ranks - 1) if operation == "broadcast" else size / ranks


def ring_bandwidth(group: Group, protocol: str) -> float:
    """Bus bandwidth in bytes/s: the scale-up port or the NICs of a node, whichever is slower."""
    constants = collective_constants()
    c, nccl = constants["achieved"], constants["nccl"]
    rate = achieved.port_rate(group) if group.per_node > 1 else float("inf")
    if group.nodes > 1:
        rate = min(rate * c["ring_through_network"], achieved.network_rate(group))
    if protocol == "LL128":
        return c["ll128_share"] * rate
    if protocol == "LL":
        where = 0 if group.nodes == 1 else 1 if group.nodes == 2 else 2
        cap = nccl["ll_max"][group.architecture][where] if where else float("inf")
        return min(c["ll_share"] * rate, cap)
    return rate


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of a ring on this group."""
    c = collective_constants()["achieved"]
    n, m = group.ranks, group.nodes
    channels = used_channels(size, device_channels(group), protocol, n, ring=True)
    bandwidth = ring_bandwidth(group, protocol)
    block = ring_block(operation, size, n)
    own = c["own_block_ll"] if protocol == "LL" else c["own_block"][operation]
    copies = 0.0 if operation == "broadcast" else own * block
    begin = achieved.start(group, protocol) + copies / bandwidth
    begin += achieved.fill(group, protocol, size, bandwidth)
    steps = ring_steps(operation, n)
    crossings = steps // (n - 1) * (m - 1)
    # Each channel leaves a node once, at another member: of n sends of a step, m cross.
    share = m / n if m > 1 else 0.0
    # LL and LL128 broadcasts flow word by word: the hops overlap with the transfer of the words before.
    head = Phase(1, begin, 0.0, 0.0, 0.0, channels, 2 * copies)
    hops = (achieved.hop(group, protocol), achieved.crossing(group, protocol) if m > 1 else 0.0)
    return (head, *steps_of(steps, crossings, block, bandwidth, *hops, share, channels)), channels
