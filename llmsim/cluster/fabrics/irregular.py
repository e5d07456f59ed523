"""Irregular fabrics: routers and the links between them, routed by shortest paths of a networkx graph.

The same interface as `Clos`. Paths are cached for each two routers; `ideal` routing splits a flow evenly over at most
`MOST_PATHS` shortest paths, `ecmp-hash` takes one of them by hash.
"""

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np

from llmsim.cluster.fabrics.ecmp import ecmp_hash as _hash
from llmsim.cluster.links import KIND, Edge, both_ways
from llmsim.cluster.topology import Topology
from llmsim.errors import SimulationError, TopologyError

MOST_PATHS = 8
MOST_LINKS = 1_000_000  # between the routers of a dragonfly


class Switches:
    """A fabric of routers named `leaf0`, `leaf1`… with the given directed edges between them."""

    rails = 1
    spines = cores = 0

    def __init__(self, edges: list[Edge], leaves: int, unit_nodes: int):
        self._edges = edges
        self.leaves = leaves
        self.unit_nodes = unit_nodes
        self._ids = {(edge.tail, edge.head): i for i, edge in enumerate(edges)}
        self._paths: dict[tuple, list[list[int]]] = {}
        self._graphs: dict[tuple[int, ...], object] = {}
        self._before: tuple[object, dict[str, list[str]]] = (None, {})  # of the last source: who comes before whom

    def __len__(self) -> int:
        return len(self._edges)

    def leaf_of(self, node, port):
        return node // self.unit_nodes + 0 * port

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """bandwidth, latency and kind of every link."""
        return (
            np.array([edge.bandwidth for edge in self._edges]),
            np.array([edge.latency for edge in self._edges]),
            np.array([KIND[edge.kind] for edge in self._edges], dtype=np.uint8),
        )

    def apply(self, bandwidth: np.ndarray, factors: np.ndarray) -> np.ndarray:
        return bandwidth * factors

    def link_name(self, link: int) -> str:
        return self._edges[link].name

    def find(self, a: str, b: str | None = None) -> list[int]:
        if b is not None:
            return [self._ids[a, b]] if (a, b) in self._ids else []
        return [i for i, edge in enumerate(self._edges) if a in (edge.tail, edge.head)]

    def edges(self) -> list[Edge]:
        return list(self._edges)

    def ways(self, a: str, b: str, bandwidth: np.ndarray) -> list[list[int]]:
        """Shortest paths from a to b as link ids, links that are down left out; `SimulationError` without any."""
        dead = tuple(np.flatnonzero(bandwidth <= 0).tolist())
        if (a, b, dead) not in self._paths:
            import networkx as nx

            if dead not in self._graphs:
                alive = (edge for i, edge in enumerate(self._edges) if i not in dead)
                self._graphs[dead] = nx.DiGraph((edge.tail, edge.head) for edge in alive)
            graph = self._graphs[dead]
            if self._before[0] != (a, dead):
                self._before = (a, dead), nx.predecessor(graph, a) if a in graph else {}
            before = self._before[1]
            if b not in before:
                raise SimulationError(f"{a} cannot reach {b}: every way between them has a link that is down")
            paths = itertools.islice(_backwards(before, b), MOST_PATHS)
            self._paths[a, b, dead] = [[self._ids[hop] for hop in itertools.pairwise(path)] for path in paths]
        return self._paths[a, b, dead]

    def counts(self, a: np.ndarray, b: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
        """How many paths a flow from leaf a to leaf b is split over under ideal spreading."""
        pairs, inverse = np.unique(np.stack([a, b]), axis=1, return_inverse=True)
        each = [len(self.ways(f"leaf{i}", f"leaf{j}", bandwidth)) if i != j else 1 for i, j in pairs.T]
        return np.array(each, dtype=np.int64)[inverse.ravel()]

    def table(self, a, b, bandwidth, routing, seed, key, variant) -> np.ndarray:
        """int64[n, w] of links from leaf a to leaf b: the variant-th path, or the hashed one."""
        rows = []
        picks = _hash(seed, *key) if routing == "ecmp-hash" else variant.astype(np.uint64)
        for i, j, pick in zip(a.tolist(), b.tolist(), picks.tolist()):
            ways = self.ways(f"leaf{i}", f"leaf{j}", bandwidth) if i != j else [[]]
            rows.append(ways[pick % len(ways)])
        width = max((len(row) for row in rows), default=0)
        return np.array([row + [-1] * (width - len(row)) for row in rows], dtype=np.int64).reshape(len(rows), width)


def _backwards(before: Mapping[str, list[str]], end: str) -> Iterator[list[str]]:
    """The shortest paths that end there, from the devices that come before each on them."""
    if not before[end]:
        yield [end]
    for device in before[end]:
        for path in _backwards(before, device):
            yield [*path, end]


def switches_of(topology: Topology, nodes: int) -> Switches:
    """The routers and links of a torus or a dragonfly."""
    routers = math.ceil(nodes / topology.network.leaf_nodes)
    if topology.network.kind == "torus":
        return _torus(topology, routers)
    return _dragonfly(topology, routers)


def _torus(topology: Topology, routers: int) -> Switches:
    """Routers in row-major order of `network.shape`, each joined to both neighbours in every dimension."""
    network, shape = topology.network, topology.network.shape
    count = math.prod(shape)
    if routers > count:
        most = count * network.leaf_nodes
        raise TopologyError(f"{topology.name}: a torus of network.shape {list(shape)} holds {most} nodes, not more")
    bandwidth = network.link_bandwidth or topology.port_bandwidth * topology.nic_ports
    grid = np.arange(count).reshape(shape)
    joined = set()
    for axis in range(len(shape)):
        neighbours = np.roll(grid, -1, axis=axis)
        joined |= {(min(a, b), max(a, b)) for a, b in zip(grid.ravel().tolist(), neighbours.ravel().tolist()) if a != b}
    edges = [
        edge
        for a, b in sorted(joined)
        for edge in both_ways(f"leaf{a}", f"leaf{b}", "router", bandwidth, network.latency)
    ]
    return Switches(edges, count, network.leaf_nodes)


def _dragonfly(topology: Topology, routers: int) -> Switches:
    """All-to-all inside a group, one link between each two groups, spread over the routers (Kim et al. 2008)."""
    network, size = topology.network, topology.network.group_leaves
    groups = math.ceil(routers / size)
    links = groups * size * (size - 1) + groups * (groups - 1)
    if links > MOST_LINKS:
        many = f"{groups:,} groups of {size:,} routers are joined by {links:,} links"
        raise TopologyError(f"{topology.name}: network.group_leaves: {many}; expected at most {MOST_LINKS:,}")
    local = network.link_bandwidth or topology.port_bandwidth
    injected = size * network.leaf_nodes * topology.nic_ports * topology.port_bandwidth
    wide = network.global_bandwidth or injected / max(1, groups - 1) / network.oversubscription
    edges = []
    for group in range(groups):
        names = [f"leaf{group * size + r}" for r in range(size)]
        for a, b in itertools.combinations(names, 2):
            edges += both_ways(a, b, "router", local, network.latency)
    for g, h in itertools.combinations(range(groups), 2):
        a = g * size + (h - g - 1) % (groups - 1) % size
        b = h * size + (g - h - 1) % (groups - 1) % size
        edges += both_ways(f"leaf{a}", f"leaf{b}", "global", wide, network.latency)
    return Switches(edges, groups * size, network.leaf_nodes)
