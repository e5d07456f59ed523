"""NVLS: the NVLink switch reduces and multicasts (NVLink SHARP), so every port carries S(1 + 1/n) for an all-reduce.

NVLS-tree adds a double binary tree between nodes; with network SHARP one crossing up and down is enough.
"""

from math import ceil, log2

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives import achieved
from llmsim.collectives.channels import device_channels, search_channels
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase, pipelined
from llmsim.collectives.tree import tree_traffic

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter")


def nvls_bandwidth(operation: str, group: Group) -> float:
    """size over time of long messages inside a node, bytes/s."""
    rate = achieved.port_rate(group, "nvls")
    # all-gather and reduce-scatter use only one of the two directions' halves, as much as the all-reduce does of both
    return rate if operation == "all_reduce" else rate * group.per_node / (group.per_node - 1)


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of NVLS on one node."""
    c = collective_constants()["achieved"]
    channels = search_channels(group, "nvls").count * 2
    bandwidth = nvls_bandwidth(operation, group)
    if group.nodes > 1:
        bandwidth = min(bandwidth, c["sharp_share"] * achieved.network_rate(group))
    begin = achieved.launch(group) + c["nvls_start"][group.architecture]
    begin += achieved.fill(group, protocol, size, bandwidth, device_channels(group))
    n = group.per_node
    intra = size * (1 + 1 / n) if operation == "all_reduce" else size
    inter = size / n if group.nodes > 1 else 0.0
    far = achieved.crossing(group, protocol) if group.nodes > 1 else 0.0
    phases = pipelined(1, 2 if group.nodes > 1 else 0, 0.0, far, size / bandwidth, intra, inter, channels)
    return (Phase(1, begin, 0.0, 0.0, 0.0, channels), *phases), channels


def plan_tree(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of NVLS inside nodes and a double binary tree between them."""
    c = collective_constants()["achieved"]
    n, m = group.per_node, group.nodes
    channels = search_channels(group, "nvls").count * 2
    _, inter = tree_traffic(size, group)
    bandwidth = min(
        nvls_bandwidth(operation, group) * c["nvls_tree_efficiency"],
        achieved.network_rate(group) * size / (inter * n) if size else 1.0,
    )
    begin = achieved.launch(group) + c["nvls_start"][group.architecture]
    begin += achieved.fill(group, protocol, size, bandwidth, device_channels(group))
    far = achieved.crossing(group, protocol)
    phases = pipelined(2, 2 * ceil(log2(m)), 0.0, far, size / bandwidth, size * (1 + 1 / n), inter, channels)
    return (Phase(1, begin, 0.0, 0.0, 0.0, channels), *phases), channels
