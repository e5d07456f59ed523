"""Double binary tree over nodes, chains inside them (Sanders, Speck & Träff 2009; NCCL 2.4).

Reduce up, broadcast down: 2(n/m - 1) hops and 2·log2(m) crossings. Every member passes S up and S down; on two nodes
each node sends S into the network, on more 2S (it is inner in one of the two trees and a leaf in the other).
"""

from math import ceil, log2

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives import achieved
from llmsim.collectives.channels import device_channels, used_channels
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase, pipelined

OPERATIONS = ("all_reduce",)


def tree_traffic(size: float, group: Group) -> tuple[float, float]:
    """Bytes that one member sends over its scale-up port and, averaged, into the network."""
    m, ppn = group.nodes, group.per_node
    intra = 2 * size * (ppn - 1) / ppn
    if m == 1:
        return intra, 0.0
    # Two nodes behind switches split each tree's root between two GPUs; otherwise one GPU sends up and down.
    balanced = m == 2 and group.scale_up == "nvswitch"
    return intra, (size if balanced else 2 * size * max(m - 1, 1) / m * (2 if m == 2 else 1)) / ppn


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of a tree on this group."""
    c, nccl = group.achieved, collective_constants()["nccl"]
    m, ppn = group.nodes, group.per_node
    channels = used_channels(size, device_channels(group, "tree"), protocol, group.ranks, ring=False)
    intra, inter = tree_traffic(size, group)
    seconds = []
    if ppn > 1:
        seconds.append(intra / (c["tree_efficiency"] * achieved.port_rate(group)))
    if m > 1:
        seconds.append(inter * ppn / (c["tree_network_efficiency"] * achieved.network_rate(group)))
    bandwidth = size / max(seconds)
    if protocol == "LL":
        cap = nccl["ll_max"][group.architecture][min(m - 1, 2)] / 2
        bandwidth = min(bandwidth * c["tree_ll_share"], cap)
    elif protocol == "LL128":
        bandwidth *= c["ll128_share"]
    hops, crossings = 2 * (ppn - 1), 2 * ceil(log2(m))
    begin = achieved.start(group, protocol, size)
    if protocol == "Simple":
        begin += achieved.fill(group, size, 2 * bandwidth) + achieved.network_fill(group, size, crossings)
    hop, crossing = achieved.hop(group, protocol), achieved.crossing(group, protocol, size)
    body = pipelined(hops, crossings, hop, crossing, size / bandwidth, intra, inter, channels)
    return (Phase(1, begin, 0.0, 0.0, 0.0, channels), *body), channels
