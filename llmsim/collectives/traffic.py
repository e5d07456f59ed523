"""Where a collective's bytes go: closed forms that the engine's link counters must equal."""

from llmsim.collectives.group import Group
from llmsim.collectives.phase import CollectivePlan


def bytes_per_link(plan: CollectivePlan, group: Group) -> dict[str, float]:
    """Bytes of one collective by kind of link, one direction.

    scale_up_port: sent by one member into its scale-up port; scale_up: by all members; network: by all members into
    the network; nic: through each NIC; node: into the network by each node.
    """
    intra = sum(p.repeat * p.intra_bytes for p in plan.phases)
    inter = sum(p.repeat * p.inter_bytes for p in plan.phases)
    network = inter * group.ranks
    node = network / group.nodes
    return {
        "scale_up_port": intra,
        "scale_up": intra * group.ranks,
        "network": network,
        "node": node,
        "nic": node / group.nics if network else 0.0,
    }
