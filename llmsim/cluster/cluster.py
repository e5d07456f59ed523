"""The cluster that a scenario runs on: its GPUs, its directed links, and the links that flows between GPUs cross.

Nothing here walks a graph: a node is a template, the fabric is arithmetic, so 100,000 GPUs cost megabytes and
milliseconds. Irregular fabrics (torus, dragonfly, a user's own graph) keep the same interface: `fabrics/irregular`,
`graph_cluster`.
"""

import fnmatch
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from llmsim.cluster.detours import detours, reach
from llmsim.cluster.fabrics.clos import Clos, clos_of
from llmsim.cluster.fabrics.irregular import switches_of
from llmsim.cluster.links import Edge, Links, Routes, routes_from_table, routes_of_split_flows
from llmsim.cluster.node import NodeTemplate, check_local, nic_of, node_template
from llmsim.cluster.topology import MOST_GPUS, Topology
from llmsim.errors import SimulationError, TopologyError

ROUTINGS = ("ideal", "ecmp-hash")


class Cluster:
    """`nodes` nodes of a topology. The id of a GPU is node * gpus_per_node + its index in the node.

    `link_factors` maps link ids to what is left of their bandwidth: 0.5 is a link at half speed, 0 a link that is down.
    Raises `TopologyError` when the topology cannot have so many nodes or GPUs.
    """

    def __init__(
        self,
        topology: Topology,
        nodes: int,
        gpus_per_node: int | None = None,
        link_factors: Mapping[int, float] | None = None,
    ):
        if nodes < 1:
            raise TopologyError(f"{nodes} nodes of {topology.name} are no cluster; at least 1 is needed")
        self.topology = topology
        self.nodes = nodes
        self.gpus_per_node = check_local(topology, gpus_per_node)
        self.gpus = nodes * self.gpus_per_node
        if self.gpus > MOST_GPUS:
            many = f"{nodes:,} nodes of {self.gpus_per_node} GPUs are {self.gpus:,} GPUs"
            raise TopologyError(f"{many}; expected at most {MOST_GPUS:,}")
        if nodes > 1 and not topology.graph and not topology.nic_ports:
            raise TopologyError(
                f"{topology.path or topology.name} has no NIC, so it can only have 1 node, not {nodes}; "
                "set the overrides node.nics and node.nic.bandwidth, such as 8 and '400 Gbps'"
            )
        if nodes > 1 and not topology.graph and topology.network.kind == "none":
            raise TopologyError(f"{topology.name} has no network, so it can only have 1 node, not {nodes}")
        self._node = self._template()
        self.fabric = self._make_fabric()
        self._first_fabric_link = nodes * len(self._node)
        self.link_factors = dict(link_factors or {})
        self.links = self._link_table()

    def _template(self) -> NodeTemplate:
        return node_template(self.topology)

    def _make_fabric(self) -> Clos:
        if self.topology.network.kind in ("torus", "dragonfly"):
            return switches_of(self.topology, self.nodes)
        return clos_of(self.topology, self.nodes)

    def with_factors(self, link_factors: Mapping[int, float]) -> "Cluster":
        """The same cluster with other link factors."""
        return type(self)(self.topology, self.nodes, self.gpus_per_node, link_factors)

    # -- GPUs ------------------------------------------------------------------------------------------------------

    def gpu_of(self, node: int | np.ndarray, local: int | np.ndarray = 0) -> int | np.ndarray:
        """Ids of GPUs by node and index in the node."""
        return node * self.gpus_per_node + local

    def node_of(self, gpu: int | np.ndarray) -> int | np.ndarray:
        return gpu // self.gpus_per_node

    def local_of(self, gpu: int | np.ndarray) -> int | np.ndarray:
        return gpu % self.gpus_per_node

    def nic_of(self, gpu: int | np.ndarray) -> np.ndarray:
        """The port (index in the node) that a GPU sends through."""
        return nic_of(self.topology, np.asarray(self.local_of(gpu)))

    def leaf_of(self, gpu: int | np.ndarray) -> np.ndarray:
        """The leaf switch that a GPU's NIC is connected to."""
        return self.fabric.leaf_of(np.asarray(self.node_of(gpu)), self.nic_of(gpu))

    def find_gpu(self, name: str) -> int:
        """The id of `node3.gpu5` (or of a plain number); `TopologyError` when it is not there."""
        match = re.fullmatch(r"(?:node(\d+)\.)?gpu(\d+)|(\d+)", str(name))
        if match:
            node, local, plain = (int(g) if g else 0 for g in match.groups())
            gpu = plain if match[3] else node * self.gpus_per_node + local
            if gpu < self.gpus and (match[3] or local < self.gpus_per_node):
                return gpu
        last = f"node{self.nodes - 1}.gpu{self.gpus_per_node - 1}"
        raise TopologyError(f"there is no GPU {name!r} in this cluster; names go from node0.gpu0 to {last}")

    def gpus_at(self, place: str) -> np.ndarray:
        """The GPU of a name such as `node3.gpu5`, or all GPUs of `node3`. Raises `TopologyError`."""
        match = re.fullmatch(r"node(\d+)", str(place))
        if match and int(match[1]) < self.nodes:
            return self.gpu_of(int(match[1]), np.arange(self.gpus_per_node))
        return np.array([self.find_gpu(place)])

    # -- links -----------------------------------------------------------------------------------------------------

    def _link_table(self) -> Links:
        node, nodes = self._node, self.nodes
        bandwidth, latency, kind = self.fabric.columns()
        nominal = np.concatenate([np.tile(node.bandwidth, nodes), bandwidth])
        latency = np.concatenate([np.tile(node.latency, nodes), latency])
        kind = np.concatenate([np.tile(node.kind, nodes), kind])
        if not self.link_factors:
            return Links(nominal, nominal, latency, kind)
        factors = np.ones(len(nominal))
        for link, factor in self.link_factors.items():
            if not 0 <= link < len(nominal):
                raise TopologyError(f"there is no link {link}; links go from 0 to {len(nominal) - 1}")
            if not factor >= 0:
                raise TopologyError(f"{self.link_name(link)}: a link factor cannot be {factor}; expected 0 or more")
            factors[link] = factor
        first = self._first_fabric_link
        left = nominal * factors
        left[first:] = self.fabric.apply(nominal[first:], factors[first:])
        return Links(left, nominal, latency, kind)

    def link_name(self, link: int) -> str:
        """`node3.gpu5->nvswitch`, `node3.nic2->leaf5`, `leaf1->spine0`, or `leaf1->spines` for a bundle of lanes."""
        if link >= self._first_fabric_link:
            return self.fabric.link_name(int(link) - self._first_fabric_link)
        node, i = divmod(int(link), len(self._node))
        edge = self._node.edges[i]
        return f"{self._device(node, edge.tail, edge.head)}->{self._device(node, edge.head, edge.tail)}"

    def _device(self, node: int, device: str, other: str) -> str:
        if device == "leaf":
            return f"leaf{self.fabric.leaf_of(node, self._ports.index(other))}"
        return f"node{node}.{device}"

    @property
    def node_links(self) -> tuple[Edge, ...]:
        """The links of one node in table order, by device names; link i of node n has id n * len(node_links) + i."""
        return self._node.edges

    @property
    def _ports(self) -> list[str]:
        return [edge.tail for edge in self._node.edges if edge.head == "leaf"]

    def find_link(self, name: str) -> np.ndarray:
        """Ids of the links that a user names, in table order.

        `a->b` is one direction, `a-b` both, `a` alone (`node3.nic2`, `leaf1`) every link of that device, in and out; a
        `*` in any of them matches anything. Parallel lanes between two switches all answer. Raises `TopologyError` when
        nothing does.
        """
        text = str(name).strip()
        if "*" in text or "?" in text:
            found = _matching([self.link_name(i) for i in range(len(self.links))], text)
        elif "->" in text:
            found = self._between(*text.split("->", 1))
        else:
            found = self._touching(text)
            cuts = [i for i, letter in enumerate(text) if letter == "-"] if not found else []
            for cut in cuts:  # a user's graph may have dashes in its names
                a, b = text[:cut], text[cut + 1 :]
                found = found or sorted({*self._between(a, b), *self._between(b, a)})
        if not len(found):
            raise TopologyError(
                f"there is no link {name!r} in this cluster of {self.nodes} {'node' if self.nodes == 1 else 'nodes'}; "
                "write it like 'node0.nic0', 'node0.gpu1->nvswitch' or 'leaf0-spine1'"
            )
        return np.array(found, dtype=np.int64)

    def _between(self, a: str, b: str) -> list[int]:
        a, b = a.strip(), b.strip()
        if a.startswith("node") or b.startswith("node"):
            candidates = self._touching(a if a.startswith("node") else b)
            return [i for i in candidates if self._ends_match(self.link_name(i), a, b)]
        return [self._first_fabric_link + i for i in self.fabric.find(a, b)]

    def _ends_match(self, link: str, a: str, b: str) -> bool:
        tail, head = link.split("->")
        return _same(tail, a) and _same(head, b)

    def _touching(self, device: str) -> list[int]:
        match = re.fullmatch(r"node(\d+)\.(.+)", device)
        if match:
            node = int(match[1])
            if node >= self.nodes:
                return []
            ends = ((i, edge) for i, edge in enumerate(self._node.edges))
            return [node * len(self._node) + i for i, e in ends if _same(e.tail, match[2]) or _same(e.head, match[2])]
        found = [self._first_fabric_link + i for i in self.fabric.find(device)]
        if device.startswith("leaf"):
            ports = [i for i, edge in enumerate(self._node.edges) if edge.kind == "nic"]
            ids = (node * len(self._node) + i for node in range(self.nodes) for i in ports)
            found = [i for i in ids if device in self.link_name(i).split("->")] + found
        return found

    # -- routes ----------------------------------------------------------------------------------------------------

    def routes(self, src, dst, routing: str = "ideal", seed: int = 0, pxn: bool = False) -> Routes:
        """The links that flows from GPUs src[n] to GPUs dst[n] cross.

        routing: `ideal` spreads traffic evenly over parallel lanes, `ecmp-hash` puts each flow on one by a seeded hash.
        pxn: traffic for another rail first goes over NVLink to the GPU of that rail in the sender's node (rail-only
        networks always do this). Links that are down are avoided where there is another way: other lanes of the fabric,
        or for a NIC that is cut off the others of its node (`detours.py`).
        Raises `SimulationError` naming the link when there is none.
        """
        if routing not in ROUTINGS:
            raise TopologyError(f"routing {routing!r} is not known; expected one of {', '.join(ROUTINGS)}")
        src, dst = (np.atleast_1d(np.asarray(ids, dtype=np.int64)) for ids in (src, dst))
        src, dst = np.broadcast_arrays(src, dst)
        both = np.concatenate([src, dst])
        if len(both) and (both.min() < 0 or both.max() >= self.gpus):
            raise TopologyError(f"GPU ids go from 0 to {self.gpus - 1} in this cluster")
        flow, legs = self._parts(src, dst, self._legs(src, dst, pxn))
        paths = self._paths_of(src[flow], dst[flow], legs) if routing == "ideal" else None
        if len(flow) == len(src) and (paths is None or (paths == 1).all()):
            table, hops = self._table(src, dst, legs, routing, seed, np.zeros(len(src), dtype=np.int64))
            self.check_alive(table)
            return routes_from_table(table, hops, self.links)
        paths = np.ones(len(flow), dtype=np.int64) if paths is None else paths
        part = np.repeat(np.arange(len(flow)), paths)
        variant = np.arange(len(part)) - np.repeat(np.cumsum(paths) - paths, paths)
        owner, legs = flow[part], Legs(*(leg[part] for leg in legs))
        table, hops = self._table(src[owner], dst[owner], legs, routing, seed, variant)
        self.check_alive(table)
        share = 1.0 / np.bincount(flow)[owner] / paths[part]
        return routes_of_split_flows(table, hops, owner, share, self.links)

    def _parts(self, src: np.ndarray, dst: np.ndarray, legs: "Legs") -> tuple[np.ndarray, "Legs"]:
        """The flow of each part, and its legs: a flow whose NIC is cut off is split over NICs that are not."""
        flow = np.arange(len(src))
        outside = np.flatnonzero(legs.outside)
        if not self.link_factors or not len(outside):
            return flow, legs
        own = nic_of(self.topology, legs.via[outside]), self.nic_of(dst[outside])
        cut, *ports = detours(self, src[outside], dst[outside], *own)
        inside = np.flatnonzero(~legs.outside)
        flow = np.concatenate([inside, outside[cut]])
        out_port, in_port = (np.concatenate([np.full(len(inside), -1), port]) for port in ports)
        order = np.argsort(flow, kind="stable")
        flow = flow[order]
        return flow, Legs(legs.outside[flow], legs.via[flow], out_port[order], in_port[order])

    def _legs(self, src: np.ndarray, dst: np.ndarray, pxn: bool) -> "Legs":
        outside = self.node_of(src) != self.node_of(dst)
        via = self.local_of(src)
        if (pxn or self.topology.network.kind == "rail-only") and self.topology.has_nvlink:
            rails = self.fabric.rails
            other_rail = self.nic_of(src) % rails != self.nic_of(dst) % rails
            via = np.where(outside & other_rail, self.local_of(dst), via)
        own = np.full(len(via), -1)
        return Legs(outside, via, own, own)

    def _paths_of(self, src: np.ndarray, dst: np.ndarray, legs: "Legs") -> np.ndarray | None:
        """How many paths each flow is split over; None in fabrics whose bundles already are that split."""
        if isinstance(self.fabric, Clos):
            return None
        outside = legs.outside
        paths = np.ones(len(src), dtype=np.int64)
        ends = self._fabric_ends(src[outside], dst[outside], Legs(*(leg[outside] for leg in legs)))
        paths[outside] = self.fabric.counts(*ends, self.links.bandwidth[self._first_fabric_link :])
        return paths

    def _fabric_ends(self, src: np.ndarray, dst: np.ndarray, legs: "Legs") -> tuple[np.ndarray, np.ndarray]:
        """The leaves where flows enter and leave the fabric."""
        out_port = np.where(legs.out_port < 0, nic_of(self.topology, legs.via), legs.out_port)
        in_port = np.where(legs.in_port < 0, self.nic_of(dst), legs.in_port)
        return self.fabric.leaf_of(self.node_of(src), out_port), self.fabric.leaf_of(self.node_of(dst), in_port)

    def _table(self, src, dst, legs: "Legs", routing, seed, variant) -> tuple[np.ndarray, np.ndarray]:
        """Link ids of each flow in hop order (-1 pads), and its hops."""
        node, size = self._node, len(self._node)
        outside, via = legs.outside, legs.via
        a, b = self.node_of(src), self.node_of(dst)
        i, j = self.local_of(src), self.local_of(dst)
        first = np.where(outside, np.where(legs.out_port < 0, via, i), j)  # where the leg inside the sender's node ends
        inside = _shifted(node.within[i, first], a * size)
        hops = node.within_hops[i, first].astype(np.int64)
        if not outside.any():
            return inside, hops
        a, b, i, j, variant = a[outside], b[outside], i[outside], j[outside], variant[outside]
        legs = Legs(*(leg[outside] for leg in legs))
        ends = self._fabric_ends(src[outside], dst[outside], legs)
        bandwidth = self.links.bandwidth[self._first_fabric_link :]
        key = (src[outside], dst[outside])
        middle = self.fabric.table(*ends, bandwidth, routing, seed, key, variant)
        out, back, reach_hops = self._reach(i, j, legs)
        parts = [
            _shifted(out, a * size),
            _shifted(middle, np.full(len(a), self._first_fabric_link)),
            _shifted(back, b * size),
        ]
        beyond = np.full((len(src), sum(part.shape[1] for part in parts)), -1, dtype=np.int64)
        beyond[outside] = np.concatenate(parts, axis=1)
        hops[outside] += reach_hops + (middle >= 0).sum(axis=1)
        return np.concatenate([inside, beyond], axis=1), hops

    def _reach(self, i: np.ndarray, j: np.ndarray, legs: "Legs") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Links of the node from GPUs i to the fabric and from the fabric to GPUs j, -1 pads, and their hops in all."""
        node, via = self._node, legs.via
        out, back, hops = node.out[via], node.back[j], (node.reach_hops[via] + node.reach_hops[j]).astype(np.int64)
        other = legs.out_port >= 0
        if other.any():
            ways, ports = reach(self.topology, self.gpus_per_node), (legs.out_port[other], legs.in_port[other])
            out = _replaced(out, other, ways.out[i[other], ports[0]])
            back = _replaced(back, other, ways.back[j[other], ports[1]])
            hops[other] = ways.hops[i[other], ports[0]] + ways.hops[j[other], ports[1]]
        return out, back, hops

    def check_alive(self, table: np.ndarray) -> None:
        """Raises `SimulationError` naming a link of the table (ids, -1 pads) that is down."""
        if self.link_factors:
            down = (np.append(self.links.bandwidth, np.inf)[table] <= 0) & (table >= 0)
            if down.any():
                link = int(table[down][0])
                raise SimulationError(f"the link {self.link_name(link)} is down and there is no way around it")


class Legs(NamedTuple):
    """How each flow leaves its node, if it does: over the NIC of the GPU `via` (its local index), and over the
    receiver's own into the other node. Where ports are not -1, out and in over those instead, whoever's they are.
    """

    outside: np.ndarray  # bool[n]
    via: np.ndarray  # int64[n]
    out_port: np.ndarray  # int64[n]
    in_port: np.ndarray  # int64[n]


def _replaced(table: np.ndarray, rows: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The table with some rows replaced, all padded to the longer width."""
    result = np.full((len(table), max(table.shape[1], by.shape[1])), -1, dtype=np.int64)
    result[:, : table.shape[1]] = table
    result[rows] = -1
    result[np.flatnonzero(rows), : by.shape[1]] = by
    return result


def _shifted(table: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Rows of link indices moved to their node's place in the link table; padding stays."""
    return np.where(table >= 0, table + by[:, None], -1)


def _matching(links: list[str], text: str) -> list[int]:
    """Places of the links (`a->b`) that a pattern names: one direction, both between two devices, all of one device."""
    match = fnmatch.fnmatchcase
    if "->" in text:
        return [i for i, link in enumerate(links) if match(link, text)]
    ends = [link.split("->", 1) for link in links]
    found = [i for i, (tail, head) in enumerate(ends) if match(tail, text) or match(head, text)]
    for cut in (i for i, letter in enumerate(text) if letter == "-"):
        a, b = text[:cut], text[cut + 1 :]
        both = [(match(tail, a) and match(head, b)) or (match(tail, b) and match(head, a)) for tail, head in ends]
        found = found or [i for i, meant in enumerate(both) if meant]
    return found


def _same(device: str, wanted: str) -> bool:
    """Whether a device is the one meant: `nic9` means the port `nic8..11`, `gpu3` means `gpu3` (node prefix or not)."""
    if device == wanted:
        return True
    prefix, _, name = wanted.rpartition(".")
    own_prefix, _, own = device.replace("..", ":").rpartition(".")
    if prefix and own_prefix and prefix != own_prefix:
        return False
    span, number = re.fullmatch(r"nic(\d+):(\d+)", own), re.fullmatch(r"nic(\d+)", name)
    if span and number:
        return int(span[1]) <= int(number[1]) <= int(span[2])
    return own == name
