"""NVLS: the NVLink switch reduces and multicasts (NVLink SHARP), so every port carries S(1 + 1/n) for an all-reduce.

NVLS-tree adds a double binary tree between nodes; with network SHARP one crossing up and down is enough.
"""

from math import ceil, log2

from llmsim.collectives import achieved
from llmsim.collectives.channels import search_channels
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase, pipelined
from llmsim.collectives.tree import tree_traffic

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter")
MOST_HEADS = 32  # members that a multicast channel can start at (NCCL_MAX_NVLS_ARITY)


def nvls_bandwidth(operation: str, group: Group) -> float:
    """size over time of long messages inside a node, bytes/s."""
    rate = achieved.port_rate(group, "nvls")
    # all-gather and reduce-scatter use only one of the two directions' halves, as much as the all-reduce does of both
    return rate if operation == "all_reduce" else rate * group.per_node / (group.per_node - 1)


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of NVLS on one node, or on several whose network switches reduce (SHARP)."""
    n, several = group.per_node, group.nodes > 1
    bandwidth = nvls_bandwidth(operation, group)
    if several:
        share = group.achieved["sharp_share"]
        bandwidth = min(bandwidth, share * achieved.network_rate(group))
    intra = size * (1 + 1 / n) if operation == "all_reduce" else size
    return _phases(size, group, bandwidth, 1, 2 if several else 0, intra, size / n if several else 0.0)


def plan_tree(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of NVLS inside nodes and a double binary tree between them."""
    c = group.achieved
    n = group.per_node
    _, inter = tree_traffic(size, group)
    rate = achieved.network_rate(group)
    if n > MOST_HEADS:
        rate = min(rate, c["rack_tree_rate"])
    network = rate * size / (inter * n)
    bandwidth = min(nvls_bandwidth(operation, group) * c["nvls_tree_efficiency"], network)
    return _phases(size, group, bandwidth, 2, 2 * ceil(log2(group.nodes)), size * (1 + 1 / n), inter)


def _phases(
    size: float, group: Group, bandwidth: float, hops: int, crossings: int, intra: float, inter: float
) -> tuple[tuple[Phase, ...], int]:
    channels = search_channels(group, "nvls").count * 2
    begin = achieved.start(group, "Simple", size, "nvls") + achieved.fill(group, size, bandwidth, "nvls")
    begin += achieved.network_fill(group, size, crossings) + max(group.local_latency, 0.0)  # to the switch and back
    crossing = achieved.crossing(group, "Simple", size)
    body = pipelined(hops, crossings, 0.0, crossing, size / bandwidth, intra, inter, channels)
    return (Phase(1, begin, 0.0, 0.0, 0.0, channels), *body), channels
