"""A cluster given as a graph of its own: routes are walked, links are its edges."""

import itertools
from typing import TYPE_CHECKING

import numpy as np

from llmsim.cluster.cluster import Cluster, Legs
from llmsim.cluster.fabrics.irregular import Switches
from llmsim.cluster.links import KIND, Edge
from llmsim.cluster.node import NodeTemplate
from llmsim.cluster.reading.graph_file import graph_from_file
from llmsim.cluster.reading.graph_topology import gpus_by_node
from llmsim.errors import TopologyError

if TYPE_CHECKING:
    import networkx as nx


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
    """A `Cluster` whose links are the edges of a user's graph. `cluster_of` makes one when it should."""

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
