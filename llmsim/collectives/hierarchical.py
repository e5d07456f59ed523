"""Hierarchical: rings inside nodes around rings between them (Cho et al. 2019, BlueConnect). By name only.

All-reduce = reduce-scatter in the node, all-reduce of S/ppn between equal positions of the nodes, all-gather in the
node: the network carries 2(m-1)/m · S/ppn per member, and latencies grow with ppn + m instead of ppn · m.
"""

from llmsim.collectives import achieved
from llmsim.collectives.channels import device_channels
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase, steps_of

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter")


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels); on one node it is the ring, with one member per node the ring between nodes."""
    m, ppn = group.nodes, group.per_node
    channels = device_channels(group)
    inside = steps_of(
        ppn - 1, 0, size / ppn, achieved.port_rate(group), achieved.hop(group, protocol), 0.0, 0.0, channels
    )
    rounds = (m - 1) * (2 if operation == "all_reduce" else 1)
    between: tuple[Phase, ...] = ()
    if m > 1:
        each = achieved.network_rate(group) / ppn
        crossing = achieved.crossing(group, protocol, size)
        between = steps_of(rounds, rounds, size / ppn / m, each, 0.0, crossing, 1.0, channels)
    order = {
        "all_reduce": (*inside, *between, *inside),
        "reduce_scatter": (*inside, *between),
        "all_gather": (*between, *inside),
    }[operation]
    return (Phase(1, achieved.start(group, protocol, size), 0.0, 0.0, 0.0, channels), *order), channels
