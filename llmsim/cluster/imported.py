"""A user's own graph as the cluster: node-link JSON, GraphML (`graph_file.py`) or an NCCL topology XML.

A graph's GPUs have `kind: gpu` and a `gpu` (catalogue name, or the override `node.gpu`). A GPU with the attribute `nic`
sends through that NIC only. `build_graph` makes such graphs.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmsim.cluster.cluster import Cluster, Legs
from llmsim.cluster.graph_file import INSIDE, graph_from_file, read_graph_file
from llmsim.cluster.links import KIND, Edge
from llmsim.cluster.node import NodeTemplate
from llmsim.cluster.switches import Switches
from llmsim.cluster.topology import Topology, parse_topology
from llmsim.errors import TopologyError

if TYPE_CHECKING:
    import networkx as nx


def topology_from_graph(path: Path, overrides: Mapping[str, object]) -> Topology:
    """What the rest of llmsim asks of a topology, read off a user's graph (or off an NCCL topology XML)."""
    if path.suffix == ".xml":
        from llmsim.cluster.nccl_xml import topology_from_xml

        return topology_from_xml(path, overrides)
    file = read_graph_file(path)
    graph = graph_from_file(file)
    gpus = gpus_by_node(graph, str(path))
    first = gpus[0]
    nics = [n for n, d in graph.nodes(data=True) if d["kind"] == "nic" and d["node"] == graph.nodes[first[0]]["node"]]
    model = graph.nodes[first[0]].get("gpu")
    if not model and "node.gpu" not in overrides:
        raise TopologyError(f"{path}: {first[0]} does not say its GPU; give it the attribute gpu, such as 'h100-sxm'")
    ports = [_widest_out(graph, nic, outside=True) for nic in nics] or [0.0]
    nvlink = _total_out(graph, first[0], "nvlink")
    star = any(graph.nodes[n]["kind"] == "nvswitch" for n in graph[first[0]])
    data = {
        "description": graph.graph.get("description", f"a graph of {len(graph)} devices"),
        "node.gpu": model,
        "node.gpus": len(first),
        "node.nics": len(nics),
        "node.nic.bandwidth": max(ports) or 1e9,  # without a NIC it says nothing, but a topology needs it
        "node.scale_up": "pcie" if not nvlink else "nvswitch" if star or len(first) == 1 else "full-mesh",
        "node.scale_up_bandwidth": nvlink or None,
        "node.pcie.bandwidth": _total_out(graph, first[0], "pcie") or None,
        "network.kind": "fat-tree" if len(gpus) > 1 else "none",
    }
    known = {key: value for key, value in data.items() if value is not None or key != "node.gpu"}
    return replace(parse_topology(known, path.stem, str(path), overrides), graph=file)


def gpus_by_node(graph: "nx.DiGraph", path: str) -> list[list[str]]:
    """Names of the GPUs of each node, both in numeric order; `TopologyError` when nodes differ in their count."""
    nodes: dict[int, list[str]] = {}
    for name, data in graph.nodes(data=True):
        if data["kind"] == "gpu":
            nodes.setdefault(data["node"], []).append(name)
    if not nodes:
        raise TopologyError(f"{path}: the graph has no GPU; give its GPUs the attribute kind: gpu")
    if len({len(gpus) for gpus in nodes.values()}) > 1:
        counts = ", ".join(str(len(gpus)) for _, gpus in sorted(nodes.items())[:6])
        raise TopologyError(f"{path}: nodes have different numbers of GPUs ({counts}); they must be alike")
    return [sorted(gpus, key=lambda n: [int(d) for d in re.findall(r"\d+", n)]) for _, gpus in sorted(nodes.items())]


def _total_out(graph: "nx.DiGraph", device: str, kind: str) -> float:
    return sum(data["bandwidth"] for _, _, data in graph.out_edges(device, data=True) if data["kind"] == kind)


def _widest_out(graph: "nx.DiGraph", device: str, outside: bool) -> float:
    out = graph.out_edges(device, data=True)
    return max((d["bandwidth"] for _, b, d in out if (graph.nodes[b]["kind"] not in INSIDE) == outside), default=0.0)


class _Walk(Switches):
    """Shortest paths between GPUs of a user's graph: NVLink where it reaches, else around the other GPUs."""

    def __init__(self, graph: "nx.DiGraph", gpus: list[str]):
        edges = [Edge(a, b, _kind(graph, a, b), d["bandwidth"], d["latency"], d["lanes"])
                 for a, b, d in graph.edges(data=True)]  # fmt: skip
        super().__init__(edges, len(gpus), 1)
        self._graph = graph
        self._gpus = gpus

    def ways(self, a: str, b: str, bandwidth: np.ndarray) -> list[list[int]]:
        import networkx as nx

        a, b = (self._gpus[int(end.removeprefix("leaf"))] for end in (a, b))
        dead = tuple(np.flatnonzero(bandwidth <= 0).tolist())
        if (a, b, dead) in self._paths:
            return self._paths[a, b, dead]
        alive = nx.restricted_view(self._graph, [], [(self._edges[i].tail, self._edges[i].head) for i in dead])
        nvlink = nx.subgraph_view(alive, filter_edge=lambda u, v: alive[u][v]["kind"] == "nvlink")
        own = {a, b, self._graph.nodes[a].get("nic"), self._graph.nodes[b].get("nic")}
        barred = {"gpu", "nic"} if len(own) == 4 and None not in own else {"gpu"}
        host = nx.subgraph_view(
            alive,
            filter_node=lambda n: n in own or self._graph.nodes[n]["kind"] not in barred,
            filter_edge=lambda u, v: alive[u][v]["kind"] != "nvlink",
        )
        for view in (nvlink, host, alive):
            if nx.has_path(view, a, b):
                paths = itertools.islice(nx.all_shortest_paths(view, a, b), 8)
                found = [[self._ids[hop] for hop in itertools.pairwise(path)] for path in paths]
                self._paths[a, b, dead] = found
                return found
        raise TopologyError(f"the graph has no way from {a} to {b}")


def _kind(graph: "nx.DiGraph", a: str, b: str) -> str:
    """The kind of link, as the link table names kinds: by what its ends are when the edge does not say."""
    said, ends = graph[a][b]["kind"], {graph.nodes[a]["kind"], graph.nodes[b]["kind"]}
    if said in KIND:
        return said
    if "core" in ends:
        return "core"
    if "spine" in ends:
        return "spine"
    return "nic" if "nic" in ends else "router" if ends == {"leaf"} else "pcie"


class GraphCluster(Cluster):
    """A `Cluster` whose links are the edges of a user's graph. `Cluster(topology, …)` makes one when it should."""

    def _template(self) -> NodeTemplate:
        """A node without links: everything is in the graph."""
        gpus = self.topology.node.gpus
        none, count = np.zeros((gpus, 0), dtype=np.int32), np.zeros(gpus, dtype=np.int16)
        within = np.zeros((gpus, gpus, 0), dtype=np.int32)
        empty = np.zeros(0)
        return NodeTemplate((), {}, within, np.zeros((gpus, gpus), dtype=np.int16), none, none, count, empty, empty,
                            empty.astype(np.uint8))  # fmt: skip

    def _make_fabric(self) -> Switches:
        graph = graph_from_file(self.topology.graph)
        nodes = gpus_by_node(graph, str(self.topology.graph))
        if self.nodes > len(nodes):
            raise TopologyError(f"{self.topology.graph} has {len(nodes)} nodes with GPUs; {self.nodes} were asked for")
        self._names = [name for node in nodes[: self.nodes] for name in node[: self.gpus_per_node]]
        return _Walk(graph, self._names)

    def _legs(self, src, dst, pxn):
        own = np.full(len(src), -1)
        return Legs(src != dst, self.local_of(src), own, own)

    def _parts(self, src, dst, legs):
        return np.arange(len(src)), legs  # the graph's own paths go around what is down

    def leaf_of(self, gpu):
        return np.asarray(gpu)

    def _fabric_ends(self, src, dst, legs):
        return src, dst

    def find_gpu(self, name: str) -> int:
        return self._names.index(name) if name in self._names else super().find_gpu(name)

    def _touching(self, device: str) -> list[int]:
        return self.fabric.find(device)

    def _between(self, a: str, b: str) -> list[int]:
        return self.fabric.find(a.strip(), b.strip())
