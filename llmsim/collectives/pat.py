"""PAT: parallel aggregated trees, for all-gather and reduce-scatter with one GPU per node (Jeaugey 2025).

As many bytes as a ring, but log2(n) network latencies instead of n-1.
"""

from math import ceil, log2

from llmsim.collectives import achieved
from llmsim.collectives.channels import device_channels
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase, pipelined

OPERATIONS = ("all_gather", "reduce_scatter")


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of PAT over `group.nodes` nodes of one member."""
    c = group.achieved
    channels = device_channels(group)
    traffic = size * (group.ranks - 1) / group.ranks
    rate = c["pat_share"] * achieved.network_rate(group)
    begin = achieved.start(group, protocol, size)
    crossing = achieved.crossing(group, protocol, size)
    body = pipelined(0, ceil(log2(group.ranks)), 0.0, crossing, traffic / rate, 0.0, traffic, channels)
    return (Phase(1, begin, 0.0, 0.0, 0.0, channels), *body), channels
