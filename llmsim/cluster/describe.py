"""What a cluster consists of, in numbers: counts, bandwidths, bisection, diameter, oversubscription."""

from collections import Counter

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.cluster_of import cluster_of
from llmsim.cluster.fabrics.clos import Clos
from llmsim.cluster.links import KINDS
from llmsim.cluster.reading.graph_topology import gpus_by_node, graph_from_file
from llmsim.cluster.topology import Topology

MOST_SAMPLED = 256


def describe(topology: Topology, nodes: int, gpus_per_node: int | None = None) -> dict:
    """A plain dict, bandwidths in bytes/s of one direction, latencies in seconds.

    `counts`: devices by kind. `links`: for each kind the number of directed links and the bandwidths that occur.
    `bisection_bandwidth`: what crosses from one half of the nodes to the other, one direction (of the GPUs when there
    is one node). `diameter_hops`, `max_latency`: over the pairs of a sample that includes the farthest.
    `oversubscription`: bytes/s that a leaf takes from below over what it can send up. `storage`: bytes/s of the shared
    file system, None where the topology does not say.
    """
    cluster = cluster_of(topology, nodes, gpus_per_node)
    hops, latency = _farthest(cluster)
    return {
        "name": topology.name,
        "description": topology.description,
        "nodes": nodes,
        "gpus_per_node": cluster.gpus_per_node,
        "gpu": topology.gpu.label,
        "counts": _counts(cluster),
        "links": _links(cluster),
        "scale_up_bandwidth": topology.scale_up_bandwidth,
        "scale_out_bandwidth": topology.scale_out_bandwidth if nodes > 1 else None,
        "bisection_bandwidth": bisection_bandwidth(cluster),
        "diameter_hops": hops,
        "max_latency": latency,
        "oversubscription": _oversubscription(cluster),
        "storage": {"read": topology.storage.read_bandwidth, "write": topology.storage.write_bandwidth},
        "sources": list(topology.sources),
    }


def _counts(cluster: Cluster) -> dict[str, int]:
    if cluster.topology.graph:
        graph = graph_from_file(cluster.topology.graph)
        return dict(Counter(kind for _, kind in graph.nodes(data="kind")))
    node, fabric, nodes = cluster.topology.node, cluster.fabric, cluster.nodes
    above = nodes > 1
    counts = {
        "gpu": cluster.gpus,
        "nvswitch": nodes * (node.nvswitches or int(node.mesh is None)) if cluster.topology.has_nvlink else 0,
        "pcie": nodes * node.pcie.switches,
        "cpu": nodes * node.cpu.sockets,
        "nic": nodes * node.nics,
        "leaf": fabric.leaves if above else 0,
        "spine": fabric.spines if above and (not isinstance(fabric, Clos) or fabric.tiered) else 0,
        "core": fabric.cores if above else 0,
    }
    return {kind: count for kind, count in counts.items() if count}


def _links(cluster: Cluster) -> dict[str, dict]:
    """By kind: how many directed links, and the lowest and highest bandwidth of one; bundles are not counted twice."""
    found = {}
    chosen = np.ones(len(cluster.links), dtype=bool)
    if isinstance(cluster.fabric, Clos):
        first = cluster.nodes * len(cluster.node_links)
        for name, (start, count) in cluster.fabric.blocks().items():
            if name.endswith("bundle") or cluster.nodes == 1:
                chosen[first + start : first + start + count] = False
    for code, kind in enumerate(KINDS):
        rates = cluster.links.nominal[chosen & (cluster.links.kind == code)]
        if len(rates) and not (kind == "nic" and cluster.nodes == 1):
            found[kind] = {"count": len(rates), "lowest": float(rates.min()), "highest": float(rates.max())}
    return found


def bisection_bandwidth(cluster: Cluster) -> float:
    """bytes/s from one half of the nodes to the other, both taken in their order; the GPUs of a single node likewise.

    In a Clos fabric the least of what the half's NICs, its leaves' lanes and its pods' lanes can send. In a node with
    a switch, half of the GPUs' links; in a mesh, and in any irregular fabric, the links that are cut.
    """
    topology, half = cluster.topology, cluster.nodes // 2
    if cluster.nodes == 1:
        return _node_bisection(cluster)
    nics = half * topology.nic_ports * topology.port_bandwidth
    fabric = cluster.fabric
    if not isinstance(fabric, Clos):
        return min(nics or np.inf, _cut(cluster, half))
    if half < fabric.unit_nodes or not fabric.tiered:
        # The halves share leaves, which carry what the NICs give; only traffic to other leaves meets the spines.
        return nics
    units = half / fabric.unit_nodes
    tiers = [nics, units * fabric.rails * fabric.leaf_uplink]
    if fabric.pods > 1 and units >= fabric.units_per_pod:
        tiers.append(units / fabric.units_per_pod * fabric.core_lanes * fabric.core_lane_bandwidth)
    return float(min(tiers))


def _node_bisection(cluster: Cluster) -> float:
    node, half = cluster.topology.node, cluster.gpus_per_node // 2
    if node.mesh is not None and cluster.topology.has_nvlink:
        one = node.scale_up_bandwidth / max(1, max(sum(row) for row in node.mesh))
        crossing = sum(sum(row[half : cluster.gpus_per_node]) for row in node.mesh[:half])
        return one * crossing
    return half * cluster.topology.scale_up_bandwidth


def _cut(cluster: Cluster, half: int) -> float:
    """bytes/s over the links between the routers of the first half of the nodes and the others."""
    import networkx as nx

    if cluster.topology.graph:
        return _graph_cut(cluster)
    graph = nx.DiGraph()
    for edge in cluster.fabric.edges():
        graph.add_edge(edge.tail, edge.head, bandwidth=edge.bandwidth)
    near = {f"leaf{leaf}" for leaf in range(cluster.fabric.leaves) if leaf < half / cluster.fabric.unit_nodes}
    used = {f"leaf{leaf}" for leaf in range(cluster.fabric.leaves)} - near
    return _min_cut(graph, near, used)


def _graph_cut(cluster: Cluster) -> float:
    graph = graph_from_file(cluster.topology.graph)
    nodes = gpus_by_node(graph, str(cluster.topology.graph))[: cluster.nodes]
    half = len(nodes) // 2
    near, far = ({gpu for node in part for gpu in node} for part in (nodes[:half], nodes[half:]))
    return _min_cut(graph, near, far)


def _min_cut(graph, near: set[str], far: set[str]) -> float:
    """The most that can flow from one set of devices to the other."""
    import networkx as nx

    if not near or not far:
        return 0.0
    wide = nx.DiGraph()
    wide.add_edges_from((a, b, {"capacity": data["bandwidth"]}) for a, b, data in graph.edges(data=True))
    wide.add_edges_from(("near half", a) for a in near)  # no capacity: unlimited
    wide.add_edges_from((b, "far half") for b in far)
    return float(nx.maximum_flow_value(wide, "near half", "far half"))


def _farthest(cluster: Cluster) -> tuple[int, float]:
    """Most hops and most latency from the first GPU (and a GPU on the last rail) to a spread sample of the others."""
    if cluster.gpus == 1:
        return 0, 0.0
    step = max(1, cluster.gpus // MOST_SAMPLED)
    local = np.arange(cluster.gpus_per_node)
    targets = np.concatenate([local, np.arange(0, cluster.gpus, step), cluster.gpus - 1 - local])
    sources = np.repeat([0, cluster.gpus_per_node - 1], len(targets))
    routes = cluster.routes(sources, np.tile(targets, 2))
    return int(routes.hops.max()), float(routes.latency.max())


def _oversubscription(cluster: Cluster) -> float | None:
    fabric, topology = cluster.fabric, cluster.topology
    if cluster.nodes == 1 or not isinstance(fabric, Clos) or not fabric.tiered:
        return None
    below = fabric.unit_nodes * topology.nic_ports / fabric.rails * topology.port_bandwidth
    ratio = below / fabric.leaf_uplink
    if fabric.pods > 1:
        pod = fabric.units_per_pod * fabric.rails * fabric.leaf_uplink
        ratio *= pod / (fabric.core_lanes * fabric.core_lane_bandwidth)
    return float(ratio)
