"""A user's own graph as the cluster: node-link JSON, GraphML, or an NCCL topology XML.

A graph's GPUs have `kind: gpu` and a `gpu` (catalogue name, or the override `node.gpu`); the node of a device is
its attribute `node` or the number in a name such as `node3.gpu5`. A GPU with the attribute `nic` sends through that
NIC only. Edges need `bandwidth`: bytes/s or `400 Gbps`. `build_graph` makes such graphs.
"""

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmsim.cluster.cluster import Cluster, Legs
from llmsim.cluster.links import KIND, Edge
from llmsim.cluster.node import NodeTemplate
from llmsim.cluster.switches import Switches
from llmsim.cluster.topology import GraphFile, Topology, parse_topology
from llmsim.errors import TopologyError, UnitError, nearest
from llmsim.units import parse_quantity

if TYPE_CHECKING:
    import networkx as nx

# Devices that sit inside a node; links that touch anything else belong to the network.
INSIDE = ("gpu", "nvswitch", "pcie", "cpu", "memory", "nvme")
DEVICES = (*INSIDE, "nic", "leaf", "spine", "core", "storage")


@lru_cache(maxsize=8)
def graph_from_file(file: GraphFile) -> "nx.DiGraph":
    """The graph of a `.json` (node-link) or `.graphml` file, every edge checked; `TopologyError` says what is wrong."""
    import networkx as nx

    try:
        graph = nx.parse_graphml(file.text) if file.path.endswith(".graphml") else _node_link(json.loads(file.text))
    except (ValueError, KeyError, TypeError, nx.NetworkXError, SyntaxError) as error:
        raise _no_graph(file.path, error) from None
    return nx.freeze(_checked(graph, file.path))


def _read(path: Path) -> GraphFile:
    try:
        return GraphFile(str(path), path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _no_graph(str(path), error) from None


def _no_graph(path: str, error: Exception) -> TopologyError:
    reason = " ".join(str(error).split())
    return TopologyError(f"{path}: this is no node-link JSON or GraphML graph ({reason})")


def _node_link(data: dict) -> "nx.Graph":
    """networkx's node-link format, under its old (`links`) and new (`edges`) name alike."""
    import networkx as nx

    if not isinstance(data, dict):
        raise ValueError("expected a mapping with nodes and links")
    links = "links" if "links" in data else "edges"
    for name in ("nodes", links):
        entries = data.get(name)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{name}: expected a list of mappings, such as {{id: gpu0, kind: gpu}}")
    graph = nx.MultiDiGraph() if data.get("directed") else nx.MultiGraph()
    graph.graph.update(dict(data.get("graph") or {}))
    for node in data["nodes"]:
        graph.add_node(node["id"], **{key: value for key, value in node.items() if key != "id"})
    for edge in data[links]:
        rest = {key: value for key, value in edge.items() if key not in ("source", "target", "key")}
        if edge["source"] not in graph or edge["target"] not in graph:
            raise ValueError(f"an edge joins {edge['source']} and {edge['target']}, and one of them is no node")
        graph.add_edge(edge["source"], edge["target"], **rest)
    return graph


def _checked(raw: "nx.Graph", path: str) -> "nx.DiGraph":
    """A DiGraph with string names, SI numbers and merged parallel edges."""
    import networkx as nx

    graph = nx.DiGraph(**raw.graph)
    for name, data in raw.nodes(data=True):
        kind = data.get("kind") or str(name).rpartition(".")[2].rstrip("0123456789")
        if kind not in DEVICES:
            raise TopologyError(f"{path}: {name} has kind {kind!r}; expected one of {', '.join(DEVICES)}"
                                f"{nearest(kind, DEVICES)}")  # fmt: skip
        graph.add_node(str(name), **(data | {"kind": kind, "node": _node_number(str(name), data)}))
    for a, b, data in raw.edges(data=True):
        try:
            bandwidth = parse_quantity(data.get("bandwidth"), "bandwidth")
            latency = parse_quantity(data.get("latency", 0.0), "time")
        except UnitError as error:
            raise TopologyError(f"{path}: edge {a} to {b}: bandwidth or latency: {error}") from None
        if bandwidth <= 0 or latency < 0:
            raise TopologyError(f"{path}: edge {a} to {b}: a bandwidth must be above 0 and a latency at least 0")
        for u, v in [(str(a), str(b))] + ([] if raw.is_directed() else [(str(b), str(a))]):
            kind = data.get("kind", "nvlink" if "nvswitch" in (graph.nodes[u]["kind"], graph.nodes[v]["kind"]) else "")
            old = graph.get_edge_data(u, v, {"bandwidth": 0.0, "lanes": 0})
            lanes = old["lanes"] + int(data.get("lanes", 1))
            graph.add_edge(u, v, bandwidth=old["bandwidth"] + bandwidth, latency=latency, kind=kind, lanes=lanes)
    return graph


def _node_number(name: str, data: Mapping) -> int:
    match = re.match(r"node(\d+)\.", name)
    return int(data.get("node", match[1] if match else -1 if "leaf" in name or "spine" in name else 0))


def topology_from_graph(path: Path, overrides: Mapping[str, object]) -> Topology:
    """What the rest of llmsim asks of a topology, read off a user's graph (or off an NCCL topology XML)."""
    if path.suffix == ".xml":
        from llmsim.cluster.nccl_xml import topology_from_xml

        return topology_from_xml(path, overrides)
    file = _read(path)
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
        "node.nic.bandwidth": max(ports) or 1.0,
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
