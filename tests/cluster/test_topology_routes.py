from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from llmsim.cluster.as_graph import build_graph
from llmsim.cluster.cluster_of import cluster_of
from llmsim.cluster.reading.load import load_topology

SMALL_FABRIC = {"network.leaf_nodes": 2, "network.switch_ports": 8}
FAMILIES = [  # topology, nodes, overrides
    ("dgx-v100", 5, SMALL_FABRIC),
    ("dgx-a100", 5, {"network.leaf_nodes": 2}),
    ("dgx-h100", 5, {"network.leaf_nodes": 2}),
    ("dgx-h100", 7, {"network.leaf_nodes": 1, "network.switch_ports": 32}),  # three tiers
    ("dgx-h100", 5, {"network.leaf_nodes": 2, "network.oversubscription": 4}),
    ("gb200-nvl72", 2, {}),
    ("hgx-h100-roce", 7, {"network.pod_nodes": 2}),
    ("aws-p4d", 3, SMALL_FABRIC),
    ("aws-p5", 3, {"network.leaf_nodes": 2}),
    ("pcie-a100-box", 3, SMALL_FABRIC),
    ("h100-pcie-pairs", 3, SMALL_FABRIC),
    ("abci-v100", 3, {"network.leaf_nodes": 1}),
    ("hgx-mi300x", 2, {}),
    ("example-fat-tree", 9, {}),
    ("example-leaf-spine", 9, {}),
    ("example-rail-only", 5, {"network.leaf_nodes": 2}),
    ("hgx-h800", 3, {}),
    ("example-dragonfly", 40, {"network.leaf_nodes": 1}),
    ("example-torus-2d", 16, {}),
    ("example-torus-3d", 64, {}),
]  # fmt: skip


def best_path(graph, cluster, a, b):
    """Hops and the widest bandwidth of networkx's shortest paths, over the devices this flow may use."""
    names = [f"node{cluster.node_of(g)}.gpu{cluster.local_of(g)}" for g in (a, b)]
    nvlink = nx.subgraph_view(graph, filter_edge=lambda u, v: graph[u][v]["kind"] == "nvlink")
    if cluster.node_of(a) == cluster.node_of(b) and nx.has_path(nvlink, *names):
        view = nvlink
    else:
        ports = [edge.tail for edge in cluster.node_links if edge.head == "leaf"]
        own = {f"node{cluster.node_of(g)}.{ports[int(cluster.nic_of(g))]}" for g in (a, b)}
        allowed = {n for n, d in graph.nodes(data=True) if d["kind"] not in ("gpu", "nic")} | own | set(names)
        view = nx.subgraph_view(
            graph,
            filter_node=lambda n: n in allowed,
            filter_edge=lambda u, v: graph[u][v]["kind"] != "nvlink",
        )
    paths = list(nx.all_shortest_paths(view, *names))
    widths = [min(graph[u][v]["bandwidth"] for u, v in nx.utils.pairwise(path)) for path in paths]
    delays = [sum(graph[u][v]["latency"] for u, v in nx.utils.pairwise(path)) for path in paths]
    return len(paths[0]) - 1, max(widths), min(delays)


@pytest.mark.parametrize(("name", "nodes", "overrides"), FAMILIES, ids=lambda v: str(v) if isinstance(v, str) else "")
@pytest.mark.parametrize("routing", ["ideal", "ecmp-hash"])
def test_routes_agree_with_shortest_paths_of_the_graph(name, nodes, overrides, routing):
    topology = load_topology(name, overrides)
    cluster, graph = cluster_of(topology, nodes), build_graph(topology, nodes)
    random = np.random.default_rng(7)
    flows = {(int(a), int(b)) for a, b in random.integers(0, cluster.gpus, (60, 2)) if a != b}
    flows |= {(0, b) for b in range(1, min(cluster.gpus, 8))}
    if topology.network.kind == "rail-only":  # other rails are reached through a neighbour's NIC
        flows = {f for f in flows if cluster.node_of(f[0]) == cluster.node_of(f[1]) or (f[0] - f[1]) % 8 == 0}
    flows = sorted(flows)
    routes = cluster.routes(*np.array(flows).T, routing=routing)
    for k, (a, b) in enumerate(flows):
        hops, width, delay = best_path(graph, cluster, a, b)
        assert routes.hops[k] == hops, (a, b)
        assert routes.latency[k] == pytest.approx(delay, rel=1e-9)
        if len(routes.share) and (routes.share[routes.flow == k] == 1).all():
            assert routes.bandwidth[k] == pytest.approx(width, rel=1e-9), (a, b)
        else:
            assert routes.bandwidth[k] >= width * (1 - 1e-9)  # split over several shortest paths


def test_routes_of_a_large_fabric_are_searched_once_for_each_source():
    """A dragonfly of 10,000 nodes: networkx alone would search its 2,500 routers again for each pair."""
    cluster = cluster_of(load_topology("example-dragonfly"), 1200)
    targets = np.arange(1, cluster.fabric.leaves, 7)
    found = [cluster.fabric.ways("leaf0", f"leaf{i}", cluster.fabric.columns()[0]) for i in targets]
    graph = nx.DiGraph((edge.tail, edge.head) for edge in cluster.fabric.edges())
    for i, ways in zip(targets, found):
        paths = list(nx.all_shortest_paths(graph, "leaf0", f"leaf{i}"))
        named = [[cluster.fabric.link_name(link) for link in way] for way in ways]
        assert named == [[f"{a}->{b}" for a, b in pairwise(path)] for path in paths[:8]]
