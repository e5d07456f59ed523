"""Recursive halving and doubling (Thakur, Rabenseifner & Gropp 2005, §4.4-4.5). MPI's, not NCCL's: by name only.

A reduce-scatter exchanges S/2, S/4, ... S/n with partners at distance n/2, ... 1; an all-gather the reverse; an
all-reduce both. 2·log2(n) latencies and the ring's bytes, when n is a power of two; otherwise the members beyond the
largest power fold their data into a partner first and fetch the result last.
"""

from llmsim.collectives import achieved
from llmsim.collectives.channels import device_channels
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter")


def exchanges(size: float, ranks: int) -> list[tuple[int, float]]:
    """(distance, bytes) of the halving steps over the largest power of two of members."""
    power = 1 << (ranks.bit_length() - 1)
    steps, distance, block = [], power // 2, size / 2
    while distance:
        steps.append((distance, block))
        distance, block = distance // 2, block / 2
    return steps


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels): far partners first, so that the largest block travels farthest."""
    n, ppn = group.ranks, group.per_node
    channels = device_channels(group)
    steps = exchanges(size, n)
    if operation == "all_gather":
        steps = steps[::-1]
    elif operation == "all_reduce":
        steps = steps + steps[::-1]
    power = 1 << (n.bit_length() - 1)
    if n > power:  # fold and unfold
        first = [(power, size)] if operation != "all_gather" else []
        last = [(power, size if operation != "reduce_scatter" else size / n)] if operation != "reduce_scatter" else []
        steps = [*first, *steps, *last]
    phases = [Phase(1, achieved.start(group, protocol, size), 0.0, 0.0, 0.0, channels)]
    for distance, block in steps:
        if group.nodes > 1 and distance >= ppn:
            seconds = block / (achieved.network_rate(group) / ppn)
            phases.append(Phase(1, achieved.crossing(group, protocol, size), seconds, 0.0, block, channels))
        else:
            seconds = block / achieved.port_rate(group)
            phases.append(Phase(1, achieved.hop(group, protocol), seconds, block, 0.0, channels))
    return tuple(phases), channels
