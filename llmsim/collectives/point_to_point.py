"""Messages between pairs: send/recv, and all-to-all as n-1 of them at once, with rail-aligned forwarding (PXN).

NCCL has no tuner here: LL up to 16 KiB per channel, Simple above. With PXN a message for GPU j of another node goes
over NVLink to the local GPU j and leaves by its NIC, so it stays on one rail and costs an NVLink copy; without it the
message leaves by the sender's own NIC and crosses rails at the spine.
"""

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives import achieved
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase


def all_to_all_traffic(size: float, group: Group, forwarded: bool) -> tuple[float, float]:
    """Bytes that a member sends over its scale-up port and into the network, its own block excluded."""
    n, ppn = group.ranks, group.per_node
    near, far = size * (ppn - 1) / n, size * (n - ppn) / n
    # Of the far blocks one in ppn is already at the right local GPU.
    return near + (far * (ppn - 1) / ppn if forwarded else 0.0), far


def peer_channels(group: Group) -> int:
    """Channels between two members: many over NVLink, shared among the peers; few over a NIC."""
    nccl = collective_constants()["nccl"]
    if group.nodes > 1 or group.scale_up not in ("nvswitch", "cube-mesh"):
        return nccl["p2p_network_channels"]
    return max(1, nccl["p2p_channels"] // (1 << (group.ranks - 1).bit_length()))


def protocol_of(message: float, group: Group) -> str:
    """LL for messages of at most 16 KiB per channel of the peer, else Simple."""
    limit = collective_constants()["nccl"]["p2p_ll_bytes"] * peer_channels(group)
    return "LL" if message <= limit else "Simple"


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """All-to-all (forwarded) or send/recv."""
    return (plan_send_recv if operation == "send_recv" else plan_all_to_all)(operation, size, group, protocol)


def plan_all_to_all(
    operation: str, size: float, group: Group, protocol: str, forwarded: bool = True
) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels): all peers at once, the slower of the NVLink and network parts decides."""
    c = collective_constants()["achieved"]
    n, m = group.ranks, group.nodes
    channels = collective_constants()["nccl"]["p2p_channels"]
    forwarded = forwarded and m > 1 and group.scale_up == "nvswitch"
    near, far = all_to_all_traffic(size, group, forwarded)
    rate = achieved.port_rate(group, "p2p")
    share = c["ll_share"] if protocol == "LL" else 1.0
    own = c["own_block"]["all_to_all"] * size / n
    seconds = (near + own) / (rate * share)
    if m > 1:
        seconds = max(seconds, far / (achieved.network_rate(group, True) / group.per_node * share))
    begin = achieved.launch(group) + c["p2p_peer"] * (n - 1)
    if protocol == "Simple":
        begin += c["p2p_start"][group.architecture] + achieved.fill(group, protocol, size, rate)
    step = achieved.crossing(group, protocol) if m > 1 else achieved.hop(group, "LL")
    return (
        Phase(1, begin, 0.0, 0.0, 0.0, channels, 2 * size / n),
        Phase(1, step, seconds, near, far, channels),
    ), channels


def plan_send_recv(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of every member sending `size` to a neighbour; in a group of several nodes, to another node."""
    c = collective_constants()["achieved"]
    m = group.nodes
    channels = collective_constants()["nccl"]["p2p_channels"]
    share = c["ll_share"] if protocol == "LL" else 1.0
    if m > 1:
        rate = achieved.network_rate(group, True) / group.per_node
        if group.per_node > 1:
            rate = min(rate, achieved.port_rate(group, "p2p"))
        step = achieved.crossing(group, protocol)
    else:
        rate, step = achieved.port_rate(group, "p2p"), achieved.hop(group, "LL")
    begin = achieved.launch(group)
    if protocol == "Simple":
        begin += c["p2p_start"][group.architecture] + achieved.fill(group, protocol, size, rate)
    near, far = (0.0, size) if m > 1 else (size, 0.0)
    body = Phase(1, step, size / (rate * share), near, far, channels)
    return (Phase(1, begin, 0.0, 0.0, 0.0, channels), body), channels
