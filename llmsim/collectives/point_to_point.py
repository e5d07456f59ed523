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


def protocols_of(message: float) -> tuple[str, ...]:
    """LL or what follows it for messages of at most 16 KiB (one channel's worth, as small messages get one)."""
    return ("LL", "Simple") if message <= collective_constants()["nccl"]["p2p_ll_bytes"] else ("Simple",)


def plan(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """All-to-all (forwarded) or send/recv."""
    return (plan_send_recv if operation == "send_recv" else plan_all_to_all)(operation, size, group, protocol)


def plan_all_to_all(
    operation: str, size: float, group: Group, protocol: str, forwarded: bool = True
) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels): all peers at once, the slower of the NVLink and network parts decides."""
    c = group.achieved
    n, m = group.ranks, group.nodes
    channels = collective_constants()["nccl"]["p2p_channels"]
    forwarded = forwarded and m > 1 and group.scale_up == "nvswitch"
    near, far = all_to_all_traffic(size, group, forwarded)
    rate = achieved.port_rate(group, "p2p")
    share = c["ll_share"] if protocol == "LL" else 1.0
    seconds = near / (rate * share)
    if m > 1:
        seconds = max(seconds, far / (achieved.network_rate(group, True) / group.per_node * share))
    begin = achieved.start(group, protocol, size, "p2p") + c["p2p_peer"] * (n - 1)
    if protocol == "Simple":
        begin += achieved.own_copy(group, operation, protocol, size / n, rate, channels)
        begin += achieved.fill(group, size, rate, "p2p")
    step = achieved.crossing(group, protocol, size) if m > 1 else achieved.hop(group, "LL")
    if forwarded:
        step += max(group.local_latency, 0.0)  # over the GPU of the receiver's rail first
    if group.rail_aligned and not forwarded and m > 1:
        step += group.fabric_latency  # other rails are one tier farther
    head = Phase(1, begin, 0.0, 0.0, 0.0, channels, 2 * size / n)
    return (head, Phase(1, step, seconds, near, far, channels)), channels


def plan_once(size: float, group: Group, copies: int, nodes: int) -> tuple[tuple[Phase, ...], int]:
    """(phases, SMs) of tokens with `copies` each, of which a node gets one; kernels as DeepEP's.

    size: bytes of all copies. nodes: most nodes that a token goes to, 0 being all. Within a node a token goes once to
    each GPU, over scale-up links; copies for experts of one GPU are made there, which is not part of this.
    """
    c = collective_constants()["dispatch"]
    near, far = all_to_all_traffic(size, group, forwarded=True)
    open_nodes = min(nodes or group.nodes, group.nodes)
    far *= _met(open_nodes, copies) / copies
    once = _met(open_nodes * group.per_node, copies) / copies
    near *= once
    seconds = size * once / (c["scale_up"] * group.scale_up_bandwidth)  # the rate counts a GPU's own tokens too
    if group.nodes > 1:
        seconds = max(seconds, far * group.per_node / (c["network"] * group.nic_bandwidth * group.nics))
    step = achieved.hop(group, "LL")
    if group.nodes > 1:
        step = achieved.crossing(group, "Simple", size) + max(group.local_latency, 0.0)
    # Senders first tell receivers how much will come.
    begin = 2 * achieved.launch(group) + step
    return (Phase(1, begin, 0.0, 0.0, 0.0, c["sms"]), Phase(1, step, seconds, near, far, c["sms"])), c["sms"]


def _met(places: int, copies: int) -> float:
    """How many of equally likely places the copies of a token meet: m·(1 − (1 − 1/m)^k)."""
    return places * (1.0 - (1.0 - 1.0 / places) ** copies)


def plan_direct(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """All-to-all without forwarding (NCCL_PXN_DISABLE=1): every pair over the sender's own NIC."""
    return plan_all_to_all(operation, size, group, protocol, forwarded=False)


def plan_send_recv(operation: str, size: float, group: Group, protocol: str) -> tuple[tuple[Phase, ...], int]:
    """(phases, channels) of every member sending `size` to a neighbour; with several nodes, to another node."""
    c = group.achieved
    m = group.nodes
    channels = collective_constants()["nccl"]["p2p_channels"]
    share = c["ll_share"] if protocol == "LL" else 1.0
    rate = achieved.port_rate(group, "p2p") if group.per_node > 1 or m == 1 else float("inf")
    step = achieved.hop(group, "LL")
    if m > 1:
        rate = min(rate, achieved.network_rate(group) / group.per_node)
        step = achieved.crossing(group, protocol, size)
    begin = achieved.start(group, protocol, size, "p2p")
    if protocol == "Simple":
        begin += achieved.fill(group, size, rate, "p2p")
    near, far = (0.0, size) if m > 1 else (size, 0.0)
    body = Phase(1, step, size / (rate * share), near, far, channels)
    return (Phase(1, begin, 0.0, 0.0, 0.0, channels), body), channels
