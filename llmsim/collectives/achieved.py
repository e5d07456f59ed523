"""What a collective takes once chosen: achieved rates and latencies per architecture, fabric and protocol.

NCCL's own estimate knows no fill of the pipeline, no copy of the own block, no fabric but a good one; these are the
measured values of the same quantities (`achieved` in the constants file).
"""

from functools import lru_cache

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives.channels import device_channels, nic_ports
from llmsim.collectives.group import Group
from llmsim.errors import CollectiveError, nearest


def _by_fabric(table: dict[str, float], group: Group) -> float:
    fabric = group.fabric
    if fabric == "efa" and group.architecture in ("volta", "ampere"):
        fabric = "efa-v1"  # the instances of those GPUs have the first EFA generation
    fabric = FABRICS.get(fabric, fabric)
    if fabric not in table:
        known = (*table, *FABRICS)
        raise CollectiveError(
            f"network {group.fabric!r} has no collective constants; expected one of {', '.join(sorted(known))}"
            f"{nearest(group.fabric, known)}"
        )
    return table[fabric]


def _links(group: Group) -> str:
    """The key of the per-architecture tables: GPUs without NVLink have their own row."""
    return group.architecture if group.scale_up in ("nvswitch", "cube-mesh") else "pcie"


@lru_cache(maxsize=4096)
def port_rate(group: Group, kind: str = "ring") -> float:
    """Bytes/s one member moves through its scale-up port with a long Simple message; kind ring, p2p or nvls."""
    c = group.achieved
    if group.scale_up in ("nvswitch", "cube-mesh"):
        return c[f"{kind}_efficiency"][group.architecture] * group.scale_up_bandwidth
    share = c["pcie_efficiency"]
    if group.scale_up == "host":
        staging = c["host_staging"]["socket" if group.per_node <= 4 else "sockets"] / group.per_node
        return min(share["pair"] * group.pcie_bandwidth, staging)
    return share["pair" if group.per_node <= 2 else "shared"] * group.pcie_bandwidth


@lru_cache(maxsize=4096)
def network_rate(group: Group, point_to_point: bool = False) -> float:
    """Bytes/s that one node's members together send into the network (one direction)."""
    c = group.achieved
    rate = _by_fabric(c["network_efficiency"], group) * group.nic_bandwidth * group.nics
    return rate * (c["p2p_network_efficiency"] if point_to_point else 1.0)


def launch(group: Group) -> float:
    """Seconds from the call to the first byte, and from the last byte to completion."""
    return group.achieved["launch"][_links(group)]


def hop(group: Group, protocol: str) -> float:
    """Seconds of one step between neighbours of a node, transfer excluded."""
    return max(group.achieved["hop"][protocol][_links(group)] + group.local_latency, 0.0)


def crossing(group: Group, protocol: str, size: float) -> float:
    """Seconds of one step between nodes, transfer excluded; 0 in a group of one node."""
    if group.nodes == 1:
        return 0.0
    c = group.achieved
    latency = _by_fabric(c["network_hop"][protocol], group)
    if protocol == "LL":
        latency *= 1 + c["ll_network_spread"] * _spread(group, size)
    return max(latency + group.fabric_latency, 0.0)


def included_latency(group: Group) -> float:
    """Seconds of NICs, PCIe links and one switch that a catalogued hop between nodes holds."""
    table = collective_constants()["included_latency"]
    return 2 * (_by_fabric(table["nic"], group) + table["pcie"]) + _by_fabric(table["switch"], group)


def network_step(group: Group) -> float:
    """Seconds that each step of a Simple ring over nodes waits until a chunk has wholly come over the network."""
    return _by_fabric(group.achieved["network_step"], group)


def chunk() -> float:
    """Bytes of one channel's chunk of a Simple ring: four slices (NCCL_STEPS / 2, src/include/collectives.h)."""
    return 4.0 * collective_constants()["nccl"]["slice"]


def start(group: Group, protocol: str, size: float, kind: str = "ring") -> float:
    """Launch and what the protocol adds to it; kind ring, p2p or nvls."""
    c = group.achieved
    if protocol == "LL":
        extra = c["ll_spread"] * _spread(group, size)
    elif protocol == "LL128":
        extra = c["ll128_start"]
    else:
        extra = c["simple_start" if kind == "ring" else f"{kind}_start"][_links(group)]
    return launch(group) + extra


def _spread(group: Group, size: float) -> float:
    return size / (size + group.achieved["ll_spread_bytes"])


def fill(group: Group, size: float, bandwidth: float, kind: str = "ring") -> float:
    """Seconds until the pipeline of a Simple collective runs full: at most one slice in every channel.

    It grows with the message as slices do, and saturates: F·S/(S + S0), F = channels·slice/bandwidth.
    """
    return _saturating(group, size, device_channels(group) * collective_constants()["nccl"]["slice"], bandwidth, kind)


def network_fill(group: Group, size: float, crossings: int) -> float:
    """Seconds that chunks of a tree wait in NIC buffers, at most one buffer per NIC at each crossing."""
    if group.nodes == 1:
        return 0.0
    nics, _ = nic_ports(group)
    buffered = crossings * max(1.0, nics) * collective_constants()["nccl"]["network_buffer"]
    return _saturating(group, size, buffered, network_rate(group), "network")


def _saturating(group: Group, size: float, buffered: float, bandwidth: float, kind: str) -> float:
    c = group.achieved
    return c["fill"][kind] * buffered / bandwidth * size / (size + c["fill_messages"][kind] * buffered)


def own_copy(group: Group, operation: str, protocol: str, block: float, bandwidth: float, channels: float) -> float:
    """Seconds in which a member copies its own block with the SMs of its channels."""
    c = group.achieved
    if protocol == "LL":
        return 0.0 if operation == "broadcast" else c["own_block_ll"] * block / bandwidth
    return c["copies"][operation] * block / (c["copy_rate"][group.architecture] * channels)


# Networks that behave as one of the calibrated ones: RDMA fabrics as InfiniBand, others as the TCP offload.
FABRICS = {"slingshot": "ib", "nvlink": "ib", "tcpx": "tcpxo", "ethernet": "tcpxo"}
