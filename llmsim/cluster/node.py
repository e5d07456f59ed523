"""One node as edges between named devices, and the paths inside it: what the graph and the link table share."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from llmsim.cluster.links import KIND, Edge, both_ways
from llmsim.cluster.topology import Node, Topology
from llmsim.errors import TopologyError


def node_edges(topology: Topology) -> list[Edge]:
    """All directed edges inside one node, slots of NICs included, ports to the fabric not."""
    node = topology.node
    edges = scale_up_edges(topology)
    edges += _host_edges(topology)
    for nic, home in enumerate(_spread(topology.nic_ports, _homes(node))):
        edges += both_ways(nic_name(topology, nic), home, "slot", node.pcie.bandwidth * _merged(topology), 0.0)
    return edges


def scale_up_edges(topology: Topology) -> list[Edge]:
    """NVLink: a star around one crossbar, or direct links where GPUs are wired to each other."""
    node = topology.node
    if not topology.has_nvlink:
        return []
    latency = node.scale_up_latency
    if node.mesh is None:
        pairs = ((f"gpu{i}", "nvswitch") for i in range(node.gpus))
        return [e for a, b in pairs for e in both_ways(a, b, "nvlink", node.scale_up_bandwidth, latency)]
    one = node.scale_up_bandwidth / max(1, max(sum(row) for row in node.mesh))
    return [
        Edge(f"gpu{i}", f"gpu{j}", "nvlink", links * one, latency, links)
        for i, row in enumerate(node.mesh)
        for j, links in enumerate(row)
        if links
    ]


def _host_edges(topology: Topology) -> list[Edge]:
    """GPUs, PCIe switches, CPUs, their memory and the local disks."""
    node, pcie, cpu = topology.node, topology.node.pcie, topology.node.cpu
    edges, homes, c2c = [], _homes(node), topology.gpu.c2c_bandwidth
    for i, home in enumerate(_spread(node.gpus, homes)):
        kind, bandwidth = ("c2c", c2c) if c2c else ("pcie", pcie.bandwidth)
        edges += both_ways(f"gpu{i}", home, kind, bandwidth, pcie.latency)
    sockets = [f"cpu{s}" for s in range(cpu.sockets)]
    if pcie.switches:
        for switch, socket in zip(homes, _spread(pcie.switches, sockets)):
            edges += both_ways(switch, socket, "pcie", pcie.bandwidth, pcie.latency)
    for a, b in zip(sockets[::2], sockets[1::2]):
        edges += both_ways(a, b, "socket", cpu.link_bandwidth, pcie.latency)
    for s, socket in enumerate(sockets):
        edges += both_ways(socket, f"dram{s}", "dram", cpu.memory_bandwidth, 0.1e-6)
    if node.nvme.capacity:
        edges.append(Edge("nvme", "cpu0", "nvme", node.nvme.read_bandwidth, pcie.latency))
        edges.append(Edge("cpu0", "nvme", "nvme", node.nvme.write_bandwidth, pcie.latency))
    return edges


def _homes(node: Node) -> list[str]:
    """Where GPUs and NICs plug in: PCIe switches, or the CPUs where there are none."""
    if node.pcie.switches:
        return [f"pcie{j}" for j in range(node.pcie.switches)]
    return [f"cpu{s}" for s in range(node.cpu.sockets)]


def _spread(count: int, homes: list[str]) -> list[str]:
    return [homes[i * len(homes) // count] for i in range(count)]


def _merged(topology: Topology) -> float:
    """How many NICs one port stands for."""
    return topology.node.nics / topology.nic_ports


def nic_name(topology: Topology, port: int) -> str:
    """`nic3`, or `nic8..11` where several NICs of one GPU act as one port."""
    merged = _merged(topology)
    first, last = int(port * merged), int((port + 1) * merged) - 1
    return f"nic{first}" if last <= first else f"nic{first}..{last}"


def nic_of(topology: Topology, local: np.ndarray) -> np.ndarray:
    """The port that a GPU of this local index sends through."""
    return local * topology.nic_ports // topology.node.gpus


@dataclass(frozen=True)
class NodeTemplate:
    """Links of one node in a fixed order, and the paths between its devices as rows of link indices (-1 pads)."""

    edges: tuple[Edge, ...]  # slots left out, ports to and from the fabric last
    index: dict[str, int]  # `gpu0->nvswitch` -> index
    within: np.ndarray  # int32[gpus, gpus, w]: path between two GPUs
    within_hops: np.ndarray  # int16[gpus, gpus]
    out: np.ndarray  # int32[gpus, w]: from a GPU to the fabric through its NIC
    back: np.ndarray  # int32[gpus, w]
    reach_hops: np.ndarray  # int16[gpus]: edges from the GPU to its NIC's port on the leaf, slot included
    bandwidth: np.ndarray
    latency: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.edges)


@lru_cache(maxsize=32)
def node_template(topology: Topology) -> NodeTemplate:
    """The template of this topology's node; cached, because every cluster of it shares the template."""
    edges = node_edges(topology)
    ports = range(topology.nic_ports)
    names = [nic_name(topology, port) for port in ports]
    bandwidth, latency = topology.port_bandwidth, topology.node.nic.latency
    links = [edge for edge in edges if edge.kind != "slot"]
    links += [Edge(name, "leaf", "nic", bandwidth, latency) for name in names]
    links += [Edge("leaf", name, "nic", bandwidth, latency) for name in names]
    index = {edge.name: i for i, edge in enumerate(links)}
    count = topology.node.gpus
    nvlink = Paths([e for e in edges if e.kind == "nvlink"])
    host = Paths([e for e in edges if e.kind != "nvlink"], ends_only=[f"gpu{i}" for i in range(count)] + names)
    within = [[_within(topology, nvlink, host, i, j) for j in range(count)] for i in range(count)]
    out, back = [], []
    for i in range(count if names else 0):
        nic = names[int(nic_of(topology, np.int64(i)))]
        out.append([*host.path(f"gpu{i}", nic), f"{nic}->leaf"])
        back.append([f"leaf->{nic}", *host.path(nic, f"gpu{i}")])
    return NodeTemplate(
        edges=tuple(links),
        index=index,
        within=padded([path for row in within for path in row], index).reshape(count, count, -1),
        within_hops=np.array([[len(path) for path in row] for row in within], dtype=np.int16),
        out=padded(out, index),
        back=padded(back, index),
        reach_hops=np.array([len(path) for path in out], dtype=np.int16),
        bandwidth=np.array([edge.bandwidth for edge in links]),
        latency=np.array([edge.latency for edge in links]),
        kind=np.array([KIND[edge.kind] for edge in links], dtype=np.uint8),
    )


def _within(topology: Topology, nvlink: "Paths", host: "Paths", i: int, j: int) -> list[str]:
    """NVLink if there is a way (through a neighbour GPU at need), else PCIe, else (no peer-to-peer) host memory."""
    a, b = f"gpu{i}", f"gpu{j}"
    if i == j:
        return []
    path = nvlink.path(a, b)
    if path:
        return path
    if topology.node.pcie.p2p:
        return host.path(a, b)
    memory = f"dram{i * topology.node.cpu.sockets // topology.node.gpus}"
    return host.path(a, memory) + host.path(memory, b)


def padded(paths: list[list[str]], index: dict[str, int]) -> np.ndarray:
    rows = [[index[name] for name in path if name in index] for path in paths]  # slots have no index
    width = max((len(row) for row in rows), default=0)
    return np.array([row + [-1] * (width - len(row)) for row in rows], dtype=np.int32).reshape(len(rows), width)


class Paths:
    """Paths of fewest edges among named devices, the widest of those; `ends_only` devices are never crossed."""

    def __init__(self, edges: Iterable[Edge], ends_only: Iterable[str] = ()):
        self._from = defaultdict(list)
        for edge in edges:
            self._from[edge.tail].append(edge)
        self._ends_only = set(ends_only)
        self._devices = len({*self._from, *(edge.head for out in self._from.values() for edge in out)})
        self._trees: dict[str, dict[str, Edge]] = {}

    def path(self, a: str, b: str) -> list[str]:
        """Names of the edges from a to b; empty when there is no way."""
        if a not in self._trees:
            self._trees[a] = self._tree(a)
        came, names = self._trees[a], []
        while b != a:
            if b not in came:
                return []
            names.append(came[b].name)
            b = came[b].tail
        return names[::-1]

    def _tree(self, source: str) -> dict[str, Edge]:
        """Breadth first; within one level the widest way in wins, the first found among equals."""
        came: dict[str, Edge] = {}
        width, level = {source: float("inf")}, [source]
        while level and len(width) < self._devices:  # in a full mesh the first level already has them all
            found: dict[str, Edge] = {}
            best: dict[str, float] = {}
            for at in level:
                if at in self._ends_only and at != source:
                    continue
                for edge in self._from[at]:
                    reach = min(width[at], edge.bandwidth)
                    if edge.head not in width and reach > best.get(edge.head, -1.0):
                        found[edge.head], best[edge.head] = edge, reach
            came |= found
            width |= best
            level = list(found)
        return came


def check_local(topology: Topology, gpus_per_node: int | None) -> int:
    """GPUs used in each node; `TopologyError` when the node has fewer."""
    used = topology.node.gpus if gpus_per_node is None else gpus_per_node
    if not 1 <= used <= topology.node.gpus:
        raise TopologyError(f"{topology.name} has {topology.node.gpus} GPUs in a node; {used} cannot be used")
    return used
