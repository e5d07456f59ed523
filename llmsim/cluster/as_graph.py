"""The cluster as a networkx graph: devices, and the directed links between them.

Node attributes: `kind` (gpu, nvswitch, pcie, nic, cpu, memory, nvme, leaf, spine, core, storage), `node` (-1 above
the nodes) and, on GPUs, `gpu` (catalogue name), `local` and `nic` (the one it sends through). Edge attributes:
`bandwidth` (bytes/s, one direction), `latency` (s), `lanes` (parallel links merged) and `kind` (nvlink, pcie, c2c,
socket, dram, nvme, or the fabric's: ib, roce, …).
The graph is for looking and for small checks; the simulator routes with `Cluster`, which never walks it.
"""

from typing import TYPE_CHECKING

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.cluster_of import cluster_of
from llmsim.cluster.links import Edge
from llmsim.cluster.node import nic_name, node_edges
from llmsim.cluster.reading.graph_topology import graph_from_file
from llmsim.cluster.topology import Topology

if TYPE_CHECKING:
    import networkx as nx

KIND_OF_DEVICE = {"dram": "memory"}
KIND_OF_FABRIC = {"infiniband": "ib", "omni-path": "opa"}


def build_graph(topology: Topology, nodes: int, gpus_per_node: int | None = None) -> "nx.DiGraph":
    """The graph of this many nodes; GPUs beyond `gpus_per_node` are left out.

    Raises `TopologyError` as `Cluster` does.
    """
    import networkx as nx

    if topology.graph:
        return graph_from_file(topology.graph)
    cluster = cluster_of(topology, nodes, gpus_per_node)
    graph = nx.DiGraph(name=topology.name, nodes=nodes, gpus_per_node=cluster.gpus_per_node)
    fabric_kind = KIND_OF_FABRIC.get(topology.network.fabric, topology.network.fabric)
    inside = node_edges(topology)
    ports = [(i, edge.tail) for i, edge in enumerate(e for e in cluster.node_links if e.head == "leaf")]
    for node in range(nodes):
        for edge in inside:
            ends = [_add(graph, cluster, node, device) for device in (edge.tail, edge.head)]
            if all(ends):
                _join(graph, *ends, edge, "pcie" if edge.kind == "slot" else edge.kind)
        for port, nic in ports if nodes > 1 else []:
            leaf = f"leaf{cluster.fabric.leaf_of(node, port)}"
            graph.add_node(leaf, kind="leaf", node=-1)
            edge = Edge(nic, leaf, "nic", topology.port_bandwidth, topology.node.nic.latency)
            _join(graph, f"node{node}.{nic}", leaf, edge, fabric_kind)
            _join(graph, leaf, f"node{node}.{nic}", edge, fabric_kind)
    if nodes > 1:
        for edge in cluster.fabric.edges():
            for device in (edge.tail, edge.head):
                graph.add_node(device, kind=device.rstrip("0123456789"), node=-1)
            _join(graph, edge.tail, edge.head, edge, fabric_kind)
    _add_storage(graph, topology, nodes)
    return graph


def _add_storage(graph: "nx.DiGraph", topology: Topology, nodes: int) -> None:
    """The shared file system, one device behind the first leaf (behind the CPU when there is no network)."""
    storage = topology.storage
    if storage.read_bandwidth or storage.write_bandwidth:
        read = storage.read_bandwidth or storage.write_bandwidth
        write = storage.write_bandwidth or storage.read_bandwidth
        behind = "leaf0" if nodes > 1 else "node0.cpu0"
        graph.add_node("storage", kind="storage", node=-1)
        _join(graph, "storage", behind, Edge("storage", behind, "nic", read, topology.network.latency), "storage")
        _join(graph, behind, "storage", Edge(behind, "storage", "nic", write, topology.network.latency), "storage")


def _add(graph: "nx.DiGraph", cluster: Cluster, node: int, device: str) -> str | None:
    """Adds a device of a node; its name, or None for a GPU that is not used."""
    name, stem = f"node{node}.{device}", device.split("..")[0]
    kind = stem.rstrip("0123456789")
    if kind != "gpu":
        graph.add_node(name, kind=KIND_OF_DEVICE.get(kind, kind), node=node)
        return name
    local = int(stem.removeprefix("gpu"))
    if local >= cluster.gpus_per_node:
        return None
    graph.add_node(name, kind="gpu", node=node, gpu=cluster.topology.node.gpu, local=local)
    if cluster.topology.nic_ports:
        graph.nodes[name]["nic"] = f"node{node}.{nic_name(cluster.topology, int(cluster.nic_of(local)))}"
    return name


def _join(graph: "nx.DiGraph", a: str, b: str, edge: Edge, kind: str) -> None:
    graph.add_edge(a, b, bandwidth=edge.bandwidth, latency=edge.latency, kind=kind, lanes=edge.lanes)
