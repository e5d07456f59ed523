"""What a collective takes once chosen: achieved rates and latencies per architecture, fabric and protocol.

NCCL's own estimate knows no fill of the pipeline, no copy of the own block, no fabric but a good one; these are the
measured values of the same quantities (`achieved` in the constants file).
"""

from functools import lru_cache

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives.channels import device_channels
from llmsim.collectives.group import Group
from llmsim.errors import CollectiveError, nearest


def _by_fabric(table: dict[str, float], group: Group) -> float:
    if group.fabric not in table:
        known = ", ".join(sorted(table))
        raise CollectiveError(
            f"network {group.fabric!r} has no collective constants; expected one of {known}"
            f"{nearest(group.fabric, table)}"
        )
    return table[group.fabric]


@lru_cache(maxsize=4096)
def port_rate(group: Group, kind: str = "ring") -> float:
    """Bytes/s one member moves through its scale-up port with a long Simple message; kind ring, p2p or nvls."""
    c = collective_constants()["achieved"]
    if group.scale_up == "host":
        return min(c["pcie_efficiency"] * group.pcie_bandwidth, c["host_staging"] / group.per_node)
    if group.scale_up in ("pcie", "none"):
        share = c["pcie_efficiency"] if group.per_node <= 2 else c["pcie_shared"]
        return share * group.pcie_bandwidth
    return c[f"{kind}_efficiency"][group.architecture] * group.scale_up_bandwidth


@lru_cache(maxsize=4096)
def network_rate(group: Group, point_to_point: bool = False) -> float:
    """Bytes/s that one node's members together send into the network (one direction)."""
    c = collective_constants()["achieved"]
    rate = _by_fabric(c["network_efficiency"], group) * group.nic_bandwidth * group.nics
    return rate * (c["p2p_network_efficiency"] if point_to_point else 1.0)


def launch(group: Group) -> float:
    """Seconds from the call to the first byte, and from the last byte to completion."""
    return collective_constants()["achieved"]["launch"][group.architecture]


def hop(group: Group, protocol: str) -> float:
    """Seconds of one step between neighbours of a node, transfer excluded."""
    return collective_constants()["achieved"]["hop"][protocol][group.architecture]


def crossing(group: Group, protocol: str) -> float:
    """Seconds of one step between nodes, transfer excluded."""
    table = collective_constants()["achieved"]["network_hop"][protocol]
    return _by_fabric(table, group) + group.fabric_latency


def start(group: Group, protocol: str) -> float:
    """Launch and what the protocol adds to it."""
    c = collective_constants()["achieved"]
    extra = {"LL": 0.0, "LL128": c["ll128_start"], "Simple": c["simple_start"][group.architecture]}
    return launch(group) + extra[protocol]


def fill(group: Group, protocol: str, size: float, bandwidth: float, channels: int | None = None) -> float:
    """Seconds until the pipeline of a Simple collective runs full: at most one slice in every channel.

    It grows with the message as slices do, and saturates: F·S/(S + S0), F = channels·slice/bandwidth.
    """
    if protocol != "Simple":
        return 0.0
    constants = collective_constants()
    c = constants["achieved"]
    buffered = (channels or device_channels(group)) * constants["nccl"]["slice"]
    return c["fill"] * buffered / bandwidth * size / (size + c["fill_messages"] * buffered)
