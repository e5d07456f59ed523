"""What is above the nodes, drawn: tiers of switches, or the routers of a torus or dragonfly, or a user's graph."""

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.fabrics.clos import Clos
from llmsim.cluster.topology import Topology
from llmsim.plots.devices import bare, box, gap, lines, note, shown
from llmsim.units import format_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 16  # switches drawn in one row
MOST_UNITS = 10  # nodes, or groups of nodes that share leaves
WIDTH = 16.0
HALF = 0.21  # of the height of a box


def draw_fabric(axes: "Axes", cluster: Cluster) -> None:
    """The fabric of a cluster of more than one node."""
    if isinstance(cluster.fabric, Clos):
        _draw_tiers(axes, cluster)
    else:
        _draw_routers(axes, cluster)


def _draw_tiers(axes: "Axes", cluster: Cluster) -> None:
    fabric, topology = cluster.fabric, cluster.topology
    single = cluster.nodes <= MOST_UNITS
    units = cluster.nodes if single else math.ceil(cluster.nodes / fabric.unit_nodes)
    nodes = _row(axes, "nodes", units, 0.0, lambda i: _unit_label(cluster, i, single), MOST_UNITS)
    # A box for every leaf, or one for all rails of a unit when there are too many.
    each = 1 if fabric.leaves <= MOST else fabric.rails
    boxes = math.ceil(fabric.leaves / each)
    most = MOST if boxes <= MOST and each == 1 else MOST_UNITS
    leaves = _row(axes, "leaf", boxes, 1.0, lambda i: _leaf_label(i, each), most)
    joins = []
    for unit, node_x in nodes.items():
        group = unit // fabric.unit_nodes if single else unit
        own = [x for leaf, x in leaves.items() if leaf * each // fabric.rails == group]
        joins += [((node_x, HALF), (x, 1.0 - HALF)) for x in own]
    lines(axes, joins, "nic", 1.0, 0.75)
    rate = topology.port_bandwidth * topology.nic_ports / topology.node.nics
    rows = [(0.5, f"{cluster.nodes * topology.node.nics:,} NIC links\n{format_rate(rate)} each way")]
    tiers = [
        (0.0, f"{cluster.nodes:,} nodes"),
        (1.0, f"{fabric.leaves:,} {'leaf' if fabric.leaves == 1 else 'leaves'}"),
    ]
    high = 1.0
    if fabric.tiered:
        high = 2.0
        spines = _row(axes, "spine", fabric.spines, 2.0, lambda i: f"spine\n{i}")
        lanes = np.arange(fabric.lanes)
        up = {
            (leaf, int(spine))
            for leaf in leaves
            for own in range(leaf * each, min((leaf + 1) * each, fabric.leaves))
            for spine in fabric.spine_of(own, lanes)
        }
        joins = [((leaves[a], 1.0 + HALF), (spines[s], 2.0 - HALF)) for a, s in sorted(up) if s in spines]
        lines(axes, joins, "spine", 0.8, 0.6)
        count = fabric.leaves * fabric.lanes
        rows.append((1.5, f"{count:,} links up\n{format_rate(fabric.lane_bandwidth)} each way\n"
                          f"oversubscription {topology.network.oversubscription:g}:1"))  # fmt: skip
        tiers.append((2.0, f"{fabric.spines:,} spine{'s' if fabric.spines > 1 else ''}"))
    if fabric.pods > 1:
        high = 3.0
        cores = _row(axes, "core", fabric.cores, 3.0, lambda i: f"core\n{i}")
        joins = set()
        for pod in range(fabric.pods):
            lanes = np.arange(fabric.core_lanes)
            ends = zip(fabric.core_spine_of(pod, lanes).tolist(), (lanes % fabric.cores).tolist())
            joins |= {(s, c) for s, c in ends if s in spines and c in cores}
        joins = [((spines[s], 2.0 + HALF), (cores[c], 3.0 - HALF)) for s, c in sorted(joins)]
        lines(axes, joins, "core", 0.8, 0.5)
        rows.append((2.5, f"{fabric.pods * fabric.core_lanes:,} links up\n{format_rate(fabric.core_lane_bandwidth)} "
                          f"each way\noversubscription {topology.network.core_oversubscription:g}:1"))  # fmt: skip
        tiers.append((3.0, f"{fabric.cores:,} core{'s' if fabric.cores > 1 else ''}\n{fabric.pods} pods"))
    for y, text in rows:
        note(axes, WIDTH + 0.4, y, text)
    for y, text in tiers:
        note(axes, -0.4, y, text, "right", bold=True)
    rails = f", {fabric.rails} rails" if topology.network.rail_optimised or fabric.planes > 1 else ""
    title = f"Above the nodes: {topology.network.kind}, {topology.network.fabric}{rails}"
    bare(axes, title, -2.0, WIDTH + 3.4, -0.4, high + 0.4)


def _row(axes: "Axes", kind: str, count: int, y: float, label, most: int = MOST) -> dict[int, float]:
    """A row of boxes spread over the width; device -> x of those that are drawn."""
    drawn = shown(count, most)
    step = WIDTH / len(drawn)
    places = {}
    for k, i in enumerate(drawn):
        x = (k + 0.5) * step
        if i is None:
            gap(axes, x, y, count - len(drawn) + 1)
        else:
            places[i] = x
            box(axes, x, y, label(i), kind, min(0.86 * step, 2.4), 2 * HALF, 7)
    return places


def _unit_label(cluster: Cluster, i: int, single: bool) -> str:
    if single:
        return f"node {i}\n{cluster.gpus_per_node} GPUs"
    size = cluster.fabric.unit_nodes
    first, last = i * size, min((i + 1) * size, cluster.nodes) - 1
    name = f"node {first}" if first == last else f"nodes\n{first}–{last}"
    return f"{name}\n{(last - first + 1) * cluster.gpus_per_node} GPUs"


def _leaf_label(i: int, each: int) -> str:
    return f"leaf\n{i}" if each == 1 else f"leaves\n{i * each}–{(i + 1) * each - 1}"


# -- routers -----------------------------------------------------------------------------------------------------------


def _draw_routers(axes: "Axes", cluster: Cluster) -> None:
    topology, network = cluster.topology, cluster.topology.network
    place, cut = _torus(network.shape) if network.kind == "torus" else _groups(cluster)
    wide = max(x for x, _ in place.values())
    high = max(y for _, y in place.values())
    texts = {}
    for edge in cluster.fabric.edges():
        a, b = (int(end.removeprefix("leaf")) for end in (edge.tail, edge.head))
        if a in place and b in place and a < b:
            near = math.dist(place[a], place[b]) < 1.8 or network.kind == "dragonfly"
            if near:
                lines(axes, [(place[a], place[b])], edge.kind, 1.6 if edge.kind == "router" else 1.0, 0.8)
            else:  # wraps around: a stub at both ends
                stubs = [_stub(place[a], place[b]), _stub(place[b], place[a])]
                lines(axes, stubs, edge.kind, 1.6, 0.8)
        texts[edge.kind] = f"{edge.kind} links {format_rate(edge.bandwidth)} each way"
    for i, (x, y) in place.items():
        box(axes, x, y, str(i), "leaf", 0.42, 0.34, 7)
    kinds = [f"{cluster.fabric.leaves} routers, {network.leaf_nodes} node{'s'[: network.leaf_nodes > 1]} on each"]
    kinds += [texts[kind] for kind in sorted(texts)]
    kinds.append(f"NIC links {format_rate(topology.port_bandwidth)} each way")
    if network.kind == "torus":
        kinds.append("stubs wrap around to the other side")
    if cut:
        kinds.append(cut)
    note(axes, wide + 1.2, high / 2, "\n".join(kinds))
    kind = network.kind if network.kind != "torus" else f"{' x '.join(map(str, network.shape))} torus"
    bare(axes, f"Above the nodes: {kind}, {network.fabric}", -1.0, wide + 6.5, -0.8, high + 0.8)


def _stub(a: tuple[float, float], b: tuple[float, float]) -> tuple:
    """A short line from a, away from b."""
    length = math.dist(a, b)
    return a, (a[0] - 0.5 * (b[0] - a[0]) / length, a[1] - 0.5 * (b[1] - a[1]) / length)


def _torus(shape: tuple[int, ...]) -> tuple[dict[int, tuple[float, float]], str]:
    """Router -> place: rows and columns, planes of a third dimension side by side; at most 4 planes of 8 by 8."""
    planes = math.prod(shape[:-2])
    rows, columns = (1, *shape)[-2:]
    place = {}
    for p, r, c in itertools.product(range(min(planes, 4)), range(min(rows, 8)), range(min(columns, 8))):
        place[(p * rows + r) * columns + c] = (p * (min(columns, 8) + 1.6) + c, float(min(rows, 8) - 1 - r))
    hidden = math.prod(shape) - len(place)
    planes_text = "planes are joined router by router" if planes > 1 else ""
    return place, "\n".join(filter(None, [planes_text, f"{hidden:,} more routers not drawn" if hidden else ""]))


def _groups(cluster: Cluster) -> tuple[dict[int, tuple[float, float]], str]:
    """Router -> place: groups on a ring, the routers of one in a small ring; at most 9 groups."""
    size = cluster.topology.network.group_leaves
    groups = cluster.fabric.leaves // size
    drawn = min(groups, 9)
    radius = max(1.6, 0.75 * drawn) if drawn > 1 else 0.0
    place = {}
    for group in range(drawn):
        turn = 2 * math.pi * group / drawn + math.pi / 4
        for r in range(size):
            own = 2 * math.pi * r / size + math.pi / 4
            x = 2 * radius + 1.6 * radius * math.cos(turn) + 0.75 * math.cos(own)
            place[group * size + r] = (x, 1.0 + radius + radius * math.sin(turn) + 0.55 * math.sin(own))
    return place, f"{groups - drawn} more groups not drawn" if groups > drawn else ""


# -- a user's graph ----------------------------------------------------------------------------------------------------

ROWS = ("nvswitch", "gpu", "pcie", "cpu", "memory", "nvme", "nic", "leaf", "spine", "core", "storage")


def draw_graph(axes: "Axes", topology: Topology) -> None:
    """Devices of a user's graph in rows by kind, at most 24 of each."""
    from llmsim.cluster.reading.graph_topology import graph_from_file

    graph = graph_from_file(topology.graph)
    by_kind = {kind: [n for n, d in graph.nodes(data=True) if d["kind"] == kind] for kind in ROWS}
    place, y = {}, 0.0
    for kind in (kind for kind in ROWS if by_kind[kind]):
        names = by_kind[kind]
        drawn = shown(len(names), 24)
        for k, i in enumerate(drawn):
            x = (k + 0.5) * WIDTH / len(drawn)
            if i is None:
                gap(axes, x, y, len(names) - len(drawn) + 1)
            else:
                place[names[i]] = (x, y)
                box(
                    axes,
                    x,
                    y,
                    names[i].replace(".", "\n"),
                    kind,
                    min(0.86 * WIDTH / len(drawn), 1.8),
                    0.44,
                    6.5,
                )
        note(axes, -0.4, y, f"{len(names)} {kind}", "right", bold=True)
        y += 1.0
    rates: dict[tuple[str, str], set[float]] = {}
    for a, b, data in graph.edges(data=True):
        if a in place and b in place:
            lines(axes, [(place[a], place[b])], data["kind"], 0.9, 0.6)
        ends = tuple(sorted((graph.nodes[a]["kind"], graph.nodes[b]["kind"])))
        rates.setdefault(ends, set()).add(data["bandwidth"])
    text = [f"{a} – {b}: {', '.join(format_rate(r) for r in sorted(rates[a, b]))}" for a, b in sorted(rates)]
    note(axes, WIDTH + 0.4, y / 2, "\n".join(["each way:", *text]))
    bare(axes, f"{topology.name}: {len(graph)} devices", -2.4, WIDTH + 5.0, -0.6, y)
