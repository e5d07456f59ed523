"""Topology files: one node and the network above it, read from a few lines of YAML. The keys: `keys.KEYS`."""

from dataclasses import dataclass, field
from functools import cached_property

from llmsim.catalogue.gpus import Gpu, gpu

MOST_GPUS = 2**20  # of one cluster: ten times the largest that have been built
MOST_ROUTERS = 65_536  # of a torus


@dataclass(frozen=True, slots=True)
class Nic:
    bandwidth: float  # bytes/s, one direction
    latency: float  # seconds


@dataclass(frozen=True, slots=True)
class Pcie:
    switches: int
    bandwidth: float
    latency: float
    p2p: bool


@dataclass(frozen=True, slots=True)
class Cpu:
    sockets: int
    memory: float  # bytes of the node
    memory_bandwidth: float  # of one socket
    link_bandwidth: float  # between two sockets, one direction


@dataclass(frozen=True, slots=True)
class Nvme:
    capacity: float  # bytes of the node; 0: none
    read_bandwidth: float
    write_bandwidth: float


@dataclass(frozen=True, slots=True)
class Node:
    """A node is one NVLink domain: a server, or a rack."""

    gpu: str
    gpus: int
    nics: int
    nic: Nic
    scale_up: str
    scale_up_bandwidth: float  # one GPU, one direction; 0 where GPUs meet over PCIe only
    scale_up_latency: float
    nvswitches: int
    mesh: tuple[tuple[int, ...], ...] | None  # links between each two GPUs where there is no switch
    pcie: Pcie
    cpu: Cpu
    nvme: Nvme
    power: float | None


@dataclass(frozen=True, slots=True)
class Network:
    kind: str
    fabric: str
    rail_optimised: bool
    rails: int
    leaf_nodes: int
    oversubscription: float
    pod_nodes: int | None
    core_oversubscription: float
    switch_ports: int
    latency: float
    shape: tuple[int, ...] | None
    group_leaves: int
    link_bandwidth: float | None
    global_bandwidth: float | None


@dataclass(frozen=True, slots=True)
class Storage:
    read_bandwidth: float | None
    write_bandwidth: float | None


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A file with a graph, as it was read: what is remembered by it stays right when the file changes."""

    path: str
    text: str = field(repr=False)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Topology:
    """What a topology file says. `graph` is a graph that the user gave instead."""

    name: str
    node: Node
    network: Network
    storage: Storage
    description: str = ""
    sources: tuple[str, ...] = ()
    path: str = ""
    graph: GraphFile | None = None

    @cached_property
    def gpu(self) -> Gpu:
        return gpu(self.node.gpu)

    @property
    def scale_up_bandwidth(self) -> float:
        """bytes/s that one GPU can send inside its node: NVLink, or PCIe where there is none."""
        return self.node.scale_up_bandwidth or self.node.pcie.bandwidth

    @property
    def has_nvlink(self) -> bool:
        return self.node.scale_up_bandwidth > 0

    @property
    def nics_per_gpu(self) -> float:
        return self.node.nics / self.node.gpus

    @property
    def nic_ports(self) -> int:
        """NICs as routes see them: several NICs of one GPU act as one port."""
        return min(self.node.nics, self.node.gpus)

    @property
    def port_bandwidth(self) -> float:
        """bytes/s of one port. A NIC gives no more than its PCIe slot."""
        if not self.nic_ports:
            return 0.0
        return min(self.node.nic.bandwidth, self.node.pcie.bandwidth) * self.node.nics / self.nic_ports

    @property
    def scale_out_bandwidth(self) -> float:
        """bytes/s per GPU when all GPUs of a node send outside at once."""
        return self.nic_ports * self.port_bandwidth / self.node.gpus
