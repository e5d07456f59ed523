"""Ways between a GPU and the memory and disks of its node: over PCIe switches or C2C, sockets, to DRAM or NVMe."""

from functools import lru_cache

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.links import Routes, routes_from_table
from llmsim.cluster.node import Paths, node_edges, node_template
from llmsim.cluster.topology import Topology
from llmsim.errors import TopologyError

#: (from, to) by name; `gpu` is the GPU itself, `memory` the DRAM nearest to it, `nvme` the disks of its node.
WAYS = {
    "to_cpu": ("gpu", "memory"),
    "from_cpu": ("memory", "gpu"),
    "to_nvme": ("gpu", "nvme"),
    "from_nvme": ("nvme", "gpu"),
    "cpu_memory": ("socket", "memory"),  # what a CPU does in its memory for this GPU
    "nvme_read": ("nvme", "socket0"),
    "nvme_write": ("socket0", "nvme"),
}


def host_routes(cluster: Cluster, gpus: np.ndarray, way: str) -> Routes:
    """The links between GPUs int[n] and host memory or disks of their nodes.

    Raises `TopologyError` where the graph does not have them: a user's own graph, or a node without disks.
    """
    if cluster.topology.graph:
        raise TopologyError(f"{cluster.topology.name} is a graph, and ways to host memory are known of topologies only")
    paths = _paths(cluster.topology, way)
    node, local = cluster.node_of(gpus), cluster.local_of(gpus)
    rows = paths[local]
    table = np.where(rows >= 0, rows + node[:, None] * len(cluster.node_links), -1)
    cluster.check_alive(table)
    return routes_from_table(table, (rows >= 0).sum(axis=1), cluster.links)


def way_exists(topology: Topology, place: str) -> bool:
    """Whether every GPU of a node has a way to `cpu` (memory) or `nvme`, and back."""
    if topology.graph:
        return False
    try:
        return all(len(_paths(topology, f"{way}_{place}")) for way in ("to", "from"))
    except TopologyError:
        return False


@lru_cache(maxsize=64)
def _paths(topology: Topology, way: str) -> np.ndarray:
    """int[gpus, w]: links of a node from one end of the way to the other, -1 pads."""
    edges = [edge for edge in node_edges(topology) if edge.kind not in ("nvlink", "slot")]
    index = node_template(topology).index
    found = []
    gpus = [f"gpu{i}" for i in range(topology.node.gpus)]
    paths = Paths(edges, ends_only=gpus)
    for gpu in gpus:
        socket = _socket(paths, gpu, topology.node.cpu.sockets)
        ends = {"gpu": gpu, "socket": f"cpu{socket}", "memory": f"dram{socket}", "nvme": "nvme", "socket0": "cpu0"}
        path = paths.path(*(ends[end] for end in WAYS[way]))
        if not path:
            raise TopologyError(f"{topology.name} has no way {way} for {gpu} of its nodes")
        found.append([index[name] for name in path])
    width = max(map(len, found))
    return np.array([row + [-1] * (width - len(row)) for row in found])


def _socket(paths: Paths, gpu: str, sockets: int) -> int:
    """The CPU nearest to a GPU."""
    ways = {socket: paths.path(gpu, f"cpu{socket}") for socket in range(sockets)}
    return min((socket for socket in ways if ways[socket]), key=lambda socket: len(ways[socket]))
