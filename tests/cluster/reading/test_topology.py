import dataclasses
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.cluster.as_graph import build_graph
from llmsim.cluster.cluster_of import cluster_of
from llmsim.cluster.describe import describe
from llmsim.cluster.reading.load import load_topology, topologies
from llmsim.errors import CatalogueError, SimulationError, TopologyError, UserError

WANTED = {
    "dgx-v100", "dgx-a100", "dgx-a100-40", "dgx-h100", "dgx-b200", "dgx-b300", "hgx-h100-roce", "hgx-h800",
    "gb200-nvl72", "gb300-nvl72", "pcie-a100-box", "jean-zay-a100", "aws-p4d", "aws-p5",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WANTED.union(topologies())))
def test_every_file_loads_and_makes_a_small_cluster(name):
    topology = load_topology(name)
    assert topology.sources and topology.description
    cluster = cluster_of(topology, 2)
    routes = cluster.routes(0, np.arange(1, cluster.gpus))
    assert (routes.bandwidth > 0).all() and np.isfinite(routes.bandwidth).all()
    assert describe(topology, 2)["counts"]["gpu"] == cluster.gpus
    assert pickle.loads(pickle.dumps(topology)) == topology
    with pytest.raises(dataclasses.FrozenInstanceError):
        topology.node.gpus = 1


def test_published_node_facts():
    a100, h100, rack = (load_topology(name) for name in ("dgx-a100", "dgx-h100", "gb200-nvl72"))
    assert (a100.scale_up_bandwidth, a100.scale_out_bandwidth) == (300e9, 25e9)
    assert (h100.scale_up_bandwidth, h100.scale_out_bandwidth) == (450e9, 50e9)
    assert (rack.node.gpus, rack.scale_up_bandwidth, rack.node.gpus * rack.scale_up_bandwidth) == (72, 900e9, 64.8e12)
    assert load_topology("jean-zay-a100").scale_out_bandwidth == 6.25e9
    assert load_topology("aws-p5").scale_out_bandwidth == 50e9 and load_topology("aws-p5").nics_per_gpu == 4


BAD = [  # topology, overrides, what the message must say
    ("dgx-h10", {}, "no topology named 'dgx-h10'; did you mean 'dgx-h100'"),
    ("nothing-like-it", {}, "known: abci-v100, "),
    ("no/such/file.yaml", {}, "there is no topology file 'no/such/file.yaml'"),
    ("dgx-h100", {"node.nic.bandwith": 1}, "unknown key; did you mean 'node.nic.bandwidth'"),
    ("dgx-h100", {"node.nic.bandwidth": "3 GiB"}, "'3 GiB' has no unit of bandwidth; write it like '400 Gbps'"),
    ("dgx-h100", {"node.nic.bandwidth": 0}, "0 is not accepted; a number without a unit is bytes/s"),
    ("dgx-h100", {"node.nic.latency": "-1 us"}, "expected 0 to 100 s"),
    ("dgx-h100", {"node.nic": {}}, "override node.nic: {} says nothing; expected a value, or no such key"),
    ("dgx-h100", {"node.gpus": 0}, "override node.gpus: 0 is not accepted; expected a whole number from 1"),
    ("dgx-h100", {"node.gpus": True}, "True is not accepted"),
    ("dgx-h100", {"node.gpu": "h100-smx"}, "no GPU named 'h100-smx' in the catalogue; did you mean 'h100-sxm'"),
    ("dgx-h100", {"node.scale_up": "nvswich"}, "expected one of nvswitch, .*did you mean 'nvswitch'"),
    ("dgx-h100", {"node.gpu": "l40s"}, "nvswitch needs links that L40S-48GB does not have"),
    ("dgx-h100", {"network.kind": "fattree"}, "did you mean 'fat-tree'"),
    ("dgx-h100", {"network.kind": "torus"}, "network.shape is missing; a torus needs it"),
    ("dgx-h100", {"network.oversubscription": "four"}, "cannot be read as a number"),
    ("dgx-h100", {"network.rail_optimised": "perhaps"}, "expected true or false"),
    ("dgx-h100", {"network.leaf_nodes": None}, "None is not accepted"),
    ("dgx-h100", {"network.shape": [4, 4]}, r"\[4, 4\]|\(4, 4\) goes with network.kind torus only, and it is fat-tree"),
    ("dgx-h100", {"node.mesh": [[0, 1], [1, 0]]}, "goes with node.scale_up cube-mesh only, and it is nvswitch"),
    ("pcie-a100-box", {"node.scale_up_latency": "1 us"}, "override node.scale_up_latency: 1e-06 goes with"),
    ("dgx-v100", {"node.gpus": 4}, "expected a 4 by 4 matrix"),
    ("dgx-v100", {"node.mesh": [[0, 1], [2, 0]]}, "symmetric matrix"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "overrides", "message"), BAD)
def test_mistakes_are_one_sentence(name, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        load_topology(name, overrides)
    assert "\n" not in str(caught.value)


def test_mistakes_in_a_file_name_file_and_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("node: {gpu: h100-sxm, gpus: 8, nics: 8, nic: {bandwidth: 400 Gbps}, scale_up: nvswitch}\n")
    with pytest.raises(TopologyError, match=r"mine\.yaml: network\.kind is missing"):
        load_topology(path)
    path.write_text("node: {gpus: eight}\n")
    with pytest.raises(TopologyError, match=r"mine\.yaml: node\.gpus: 'eight' is not accepted"):
        load_topology(path)
    path.write_text("node: [")
    with pytest.raises(TopologyError, match=r"mine\.yaml:2: this is not YAML"):
        load_topology(path)
    path.write_text("- a\n")
    with pytest.raises(TopologyError, match="expected a mapping"):
        load_topology(path)


def test_overrides_reach_what_depends_on_them():
    slow = load_topology("dgx-h100", {"node.nic.bandwidth": "100 Gbps", "node.gpu": "a100-80"})
    assert slow.scale_out_bandwidth == 12.5e9 and slow.scale_up_bandwidth == 300e9
    assert slow.node.pcie.bandwidth == 31.5e9
    fast = load_topology("dgx-h100", {"node.nic.bandwidth": "1.6 Tbps"})
    assert fast.scale_out_bandwidth == 63e9  # the PCIe slot gives no more


def test_clusters_that_cannot_be():
    with pytest.raises(TopologyError, match="0 nodes of dgx-h100"):
        cluster_of(load_topology("dgx-h100"), 0)
    with pytest.raises(TopologyError, match="8 GPUs in a node; 9 cannot be used"):
        cluster_of(load_topology("dgx-h100"), 1, 9)
    with pytest.raises(TopologyError, match="has no network"):
        cluster_of(load_topology("dgx-h100", {"network.kind": "none"}), 2)
    with pytest.raises(TopologyError, match=r"network\.shape \[4, 4\] holds 16 nodes"):
        cluster_of(load_topology("example-torus-2d"), 17)
    with pytest.raises(TopologyError, match="ids go from 0 to 7"):
        cluster_of(load_topology("dgx-h100"), 1).routes(0, 8)
    with pytest.raises(TopologyError, match="'spray' is not known; expected one of ideal"):
        cluster_of(load_topology("dgx-h100"), 1).routes(0, 1, routing="spray")
    with pytest.raises(CatalogueError):
        load_topology("dgx")


# Published: DGX SuperPOD B200 reference architecture, scalable units of 32 nodes: (units, leaves, spines, cores).
@pytest.mark.parametrize(("units", "leaves", "spines", "cores"), [
    (2, 16, 8, 0), (4, 32, 16, 0), (8, 64, 32, 0), (16, 128, 128, 64), (32, 256, 256, 128), (64, 512, 512, 256),
])  # fmt: skip
def test_switch_counts_of_the_superpod(units, leaves, spines, cores):
    counts = describe(load_topology("dgx-b200"), 32 * units)["counts"]
    assert (counts["leaf"], counts["spine"], counts.get("core", 0)) == (leaves, spines, cores)


def test_bisection_and_oversubscription():
    full = describe(load_topology("dgx-h100"), 64)
    assert full["bisection_bandwidth"] == pytest.approx(256 * 50e9) and full["oversubscription"] == pytest.approx(1)
    thin = describe(load_topology("dgx-h100", {"network.oversubscription": 4}), 64)
    assert thin["bisection_bandwidth"] == pytest.approx(256 * 50e9 / 4) and thin["oversubscription"] == pytest.approx(4)
    meta = describe(load_topology("hgx-h100-roce"), 3072)  # 1,536 racks, 8 pods, 7:1 above them
    assert meta["counts"]["leaf"] == 1536 and meta["oversubscription"] == pytest.approx(7)
    assert meta["bisection_bandwidth"] == pytest.approx(12288 * 50e9 / 7)
    assert describe(load_topology("dgx-v100"), 1)["bisection_bandwidth"] == pytest.approx(6 * 25e9)
    torus = describe(load_topology("example-torus-2d"), 16)
    assert torus["bisection_bandwidth"] == pytest.approx(8 * 100e9)  # two cuts of four links each
    assert torus["diameter_hops"] == 4 + 6


def test_rails():
    topology = load_topology("dgx-h100")
    cluster = cluster_of(topology, 64)
    same_unit, next_unit = cluster.gpu_of(31, 0), cluster.gpu_of(32, 0)
    other_rail = cluster.gpu_of(1, 5)
    routes = cluster.routes(0, [same_unit, next_unit, other_rail, other_rail])
    assert routes.hops.tolist() == [6, 8, 8, 8]
    assert cluster.routes(0, other_rail, pxn=True).hops.tolist() == [8]
    names = [cluster.link_name(i) for i in cluster.routes(0, other_rail, pxn=True).link]
    assert names[:2] == ["node0.gpu0->node0.nvswitch", "node0.nvswitch->node0.gpu5"]
    assert not any("spine" in name for name in names)
    rail_only = cluster_of(load_topology("example-rail-only"), 4)
    assert not any("spine" in rail_only.link_name(i) for i in rail_only.routes(0, np.arange(32)).link)


def test_two_gpus_share_a_nic_on_p4d_and_four_nics_serve_one_on_p5():
    p4d = cluster_of(load_topology("aws-p4d"), 2)
    nic = set(p4d.find_link("node0.nic0->leaf0").tolist())
    routes = p4d.routes([0, 1, 2], [8, 9, 10])
    assert [f for f, link in zip(routes.flow, routes.link) if link in nic] == [0, 1]
    p5 = cluster_of(load_topology("aws-p5"), 2)
    assert p5.routes(0, 8).bandwidth[0] == 50e9
    assert p5.find_link("node0.nic2").tolist() == p5.find_link("node0.nic0").tolist()


def test_host_memory_is_crossed_without_peer_to_peer():
    cluster = cluster_of(load_topology("pcie-l40s-box"), 1)
    names = [cluster.link_name(i) for i in cluster.routes(0, 1).link]
    assert "node0.cpu0->node0.dram0" in names
    direct = cluster_of(load_topology("pcie-a100-box"), 1).routes([0, 0, 0], [1, 2, 4])
    assert direct.hops.tolist() == [2, 4, 5]


def test_v100_mesh():
    cluster = cluster_of(load_topology("dgx-v100"), 1)
    routes = cluster.routes(0, [1, 3, 4, 5])
    assert routes.hops.tolist() == [1, 1, 1, 2]  # to GPU 5 through a neighbour
    assert routes.bandwidth.tolist() == [25e9, 50e9, 50e9, 25e9]


def test_names_find_what_they_name():
    cluster = cluster_of(load_topology("dgx-h100"), 64)
    random = np.random.default_rng(3)
    for link in random.integers(0, len(cluster.links), 40):
        assert link in cluster.find_link(cluster.link_name(link))
    both = cluster.find_link("leaf1-spine0")
    assert {cluster.link_name(i) for i in both} == {"leaf1->spine0", "spine0->leaf1"}
    assert len(cluster.find_link("node3.nic2")) == 2
    assert len(cluster.find_link("node3.gpu5")) == 4
    assert len(cluster.find_link("node3.*->leaf*")) == 8
    assert len(cluster.find_link("node3.nic*")) == 16  # out and in, as node3.nic2 alone means both
    assert sorted(cluster.find_link("leaf*-node3.nic2")) == sorted(cluster.find_link("node3.nic2"))
    assert sorted(cluster.find_link("leaf1-spine*")) == sorted(
        {*cluster.find_link("leaf1->spine*"), *cluster.find_link("spine*->leaf1")}
    )
    assert cluster.find_gpu("node3.gpu5") == 29 and cluster.find_gpu("29") == 29
    with pytest.raises(TopologyError, match=r"no link 'node3\.nic9'"):
        cluster.find_link("node3.nic9")
    with pytest.raises(TopologyError, match=r"from node0\.gpu0 to node63\.gpu7"):
        cluster.find_gpu("node64.gpu0")


def test_slow_and_broken_links():
    topology = load_topology("dgx-h100")
    healthy = cluster_of(topology, 64)
    nic = healthy.find_link("node1.nic0")
    slow = healthy.with_factors({int(link): 0.5 for link in nic})
    assert slow.routes(0, [8, 16]).bandwidth.tolist() == [25e9, 50e9]
    dead = healthy.with_factors({int(link): 0.0 for link in nic})
    every = healthy.with_factors({int(link): 0.0 for link in healthy.find_link("leaf*->node1.nic*")})
    with pytest.raises(SimulationError, match=r"the link leaf0->node1\.nic0 is down and there is no way around"):
        every.routes(0, 8)
    assert dead.routes(0, 16).bandwidth[0] == 50e9
    with pytest.raises(TopologyError, match="a link factor cannot be -1"):
        healthy.with_factors({0: -1})


@pytest.mark.parametrize("name", ["dgx-h100", "example-rail-only", "hgx-mi300x", "pcie-a100-box", "aws-p4d"])
def test_the_others_carry_what_a_broken_nic_did(name):
    """Evenly, on the same port at both ends, over NVLink where it leads there, and each byte once."""
    healthy = cluster_of(load_topology(name), 2)
    gpus = healthy.gpus_per_node
    dead = healthy.with_factors({int(link): 0.0 for link in healthy.find_link("node0.nic0")})
    src, dst = np.arange(gpus), np.arange(gpus, 2 * gpus)
    before, after = healthy.routes(src, dst), dead.routes(src, dst)
    ports, lost = healthy.topology.nic_ports, healthy.nic_of(src) == 0
    for cluster, routes, carried in ((healthy, before, gpus / ports), (dead, after, gpus / (ports - 1))):
        loads = np.bincount(routes.link, weights=routes.share, minlength=len(cluster.links))
        for node, way in ((0, "node{}.nic{}->leaf*"), (1, "leaf*->node{}.nic{}")):
            each = [loads[cluster.find_link(way.format(node, port))].sum() for port in range(ports)]
            assert sum(each) == pytest.approx(gpus)
            assert each[1:] == pytest.approx([carried] * (ports - 1))
    assert not np.isin(healthy.find_link("node0.nic0"), after.link).any()
    chain = [dead.link_name(i) for f, i in zip(after.flow, after.link) if f == 0]
    assert any("nvswitch" in link or "gpu0->node0.gpu" in link for link in chain) == healthy.topology.has_nvlink
    kept = np.flatnonzero(~lost)
    assert all((after.link[after.flow == f] == before.link[before.flow == f]).all() for f in kept)
    assert (after.latency >= before.latency).all() and (after.hops >= before.hops).all()


def test_unlike_nics_of_two_nodes_go_together_at_need():
    healthy = cluster_of(load_topology("example-fat-tree"), 2)  # two NICs a node
    dead = healthy.with_factors({int(i): 0.0 for name in ("node0.nic0", "node1.nic1") for i in healthy.find_link(name)})
    names = {dead.link_name(i) for i in dead.routes(0, 4).link}
    assert {"node0.nic1->leaf0", "leaf0->node1.nic0"} <= names


def test_a_broken_spine_lane_is_avoided_and_thins_the_bundle():
    topology = load_topology("dgx-h100")
    healthy = cluster_of(topology, 64)
    lanes = healthy.find_link("leaf0-spine0")
    dead = healthy.with_factors({int(link): 0.0 for link in lanes})
    flows = np.arange(32) * 8, np.arange(32, 64) * 8  # rail 0 of unit 0 to rail 0 of unit 1
    assert np.isin(lanes, healthy.routes(*flows, routing="ecmp-hash").link).any()
    assert not np.isin(lanes, dead.routes(*flows, routing="ecmp-hash").link).any()
    bundle = healthy.find_link("leaf0->spines")[0]
    share = 1 - len(lanes) / 2 / healthy.fabric.lanes
    assert dead.links.bandwidth[bundle] == pytest.approx(healthy.links.bandwidth[bundle] * share)
    every = {int(link): 0.0 for link in healthy.find_link("leaf0->spine*")}
    with pytest.raises(SimulationError, match="leaf0"):
        healthy.with_factors(every).routes(0, 8 * 40)
    with pytest.raises(SimulationError, match="leaf0 cannot reach leaf8"):
        healthy.with_factors(every).routes(0, 8 * 40, routing="ecmp-hash")


def test_hashing_collides_and_is_repeatable():
    cluster = cluster_of(load_topology("dgx-h100"), 64)
    flows = np.arange(32) * 8, np.arange(32, 64) * 8
    first, again, other = (cluster.routes(*flows, routing="ecmp-hash", seed=s) for s in (0, 0, 1))
    assert (first.link == again.link).all() and (first.link != other.link).any()
    up = first.link[np.isin(first.link, cluster.find_link("leaf0->spine*"))]
    assert 10 < len(set(up.tolist())) < 32  # 32 flows on 32 lanes: some collide (expected 20 lanes used)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_routes_are_consistent(data):
    names = ["dgx-v100", "dgx-h100", "example-rail-only", "hgx-h100-roce", "example-dragonfly"]
    name = data.draw(st.sampled_from(names))
    nodes = data.draw(st.integers(1, 12))
    topology = load_topology(name, {"network.leaf_nodes": data.draw(st.integers(1, 4)),
                                    "network.oversubscription": data.draw(st.sampled_from([1, 2, 7]))})  # fmt: skip
    cluster = cluster_of(topology, nodes, data.draw(st.integers(1, topology.node.gpus)))
    pick = st.lists(st.integers(0, cluster.gpus - 1), min_size=5, max_size=5)
    src, dst = np.array(data.draw(pick)), np.array(data.draw(pick))
    routing = data.draw(st.sampled_from(["ideal", "ecmp-hash"]))
    routes = cluster.routes(src, dst, routing=routing, seed=data.draw(st.integers(0, 9)))
    assert (np.diff(routes.flow) >= 0).all()
    for f in range(5):
        links, share = routes.link[routes.flow == f], routes.share[routes.flow == f]
        if src[f] == dst[f]:
            assert not len(links) and np.isinf(routes.bandwidth[f]) and routes.hops[f] == 0
            continue
        assert routes.bandwidth[f] == pytest.approx((cluster.links.bandwidth[links] / share).min())
        if (share == 1).all():
            assert routes.latency[f] == pytest.approx(cluster.links.latency[links].sum())
            names = [cluster.link_name(i).split("->") for i in links]
            assert names[0][0].endswith(f"gpu{cluster.local_of(src[f])}")
            assert names[-1][1].endswith(f"gpu{cluster.local_of(dst[f])}")
    back = cluster.routes(dst, src, routing="ideal")
    assert np.array_equal(back.hops, cluster.routes(src, dst).hops)


def test_a_hundred_thousand_gpus():
    tracemalloc.start()
    cluster = cluster_of(load_topology("dgx-h100"), 12_500)
    gpus = np.arange(cluster.gpus)
    routes = cluster.routes(gpus, np.roll(gpus, -1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cluster.gpus == 100_000 and len(routes.latency) == 100_000
    assert peak < 300e6
    assert len(cluster.find_link("node12499.nic7")) == 2


# -- users' own graphs -------------------------------------------------------------------------------------------------


def _square(tmp_path, **change):
    nodes = [{"id": f"node{n}.gpu{g}", "gpu": "a100-80"} for n in (0, 1) for g in (0, 1)]
    nodes += [{"id": f"node{n}.{d}"} for n in (0, 1) for d in ("nvswitch", "nic0")] + [{"id": "leaf0", "kind": "leaf"}]
    links = [
        {"source": f"node{n}.gpu{g}", "target": f"node{n}.{d}", "bandwidth": w, "latency": "1 us", "kind": k}
        for n in (0, 1) for g in (0, 1) for d, w, k in (("nvswitch", "300 GB/s", "nvlink"), ("nic0", 31.5e9, "pcie"))
    ]  # fmt: skip
    up = {"target": "leaf0", "bandwidth": "200 Gbps", "latency": "1 us"}
    links += [{"source": f"node{n}.nic0"} | up for n in (0, 1)]
    data = {"directed": False, "nodes": nodes, "links": links} | change
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    return path


def test_a_graph_of_ones_own(tmp_path):
    topology = load_topology(_square(tmp_path))
    assert topology.node.gpus == 2 and topology.gpu.name == "a100-80" and topology.scale_up_bandwidth == 300e9
    cluster = cluster_of(topology, 2)
    routes = cluster.routes([0, 0, 2], [1, 3, 2])
    assert routes.bandwidth.tolist() == [300e9, 25e9, np.inf] and routes.hops.tolist() == [2, 4, 0]
    assert routes.latency == pytest.approx([2e-6, 4e-6, 0])
    nic = cluster.find_link("node1.nic0->leaf0")
    slow = cluster.with_factors({int(nic[0]): 0.5}).routes([3, 0], [0, 3])
    assert slow.bandwidth.tolist() == [12.5e9, 25e9]
    assert describe(topology, 2)["bisection_bandwidth"] == pytest.approx(25e9)
    assert cluster.find_gpu("node1.gpu1") == 3
    with pytest.raises(TopologyError, match="has 2 nodes with GPUs; 3 were asked for"):
        cluster_of(topology, 3)


def test_a_graph_in_graphml_and_one_that_was_built(tmp_path):
    import networkx as nx

    graph = build_graph(load_topology("dgx-a100", {"network.leaf_nodes": 1}), 2)
    path = tmp_path / "built.graphml"
    nx.write_graphml(graph, path)
    loaded = cluster_of(load_topology(path), 2)
    original = cluster_of(load_topology("dgx-a100", {"network.leaf_nodes": 1}), 2)
    pairs = ([0, 0, 0, 3], [5, 8, 13, 11])
    assert loaded.routes(*pairs).hops.tolist() == original.routes(*pairs).hops.tolist()
    assert loaded.routes(*pairs).bandwidth == pytest.approx(original.routes(*pairs).bandwidth)


@pytest.mark.parametrize(("change", "message"), [
    ({"links": [{"source": "node0.gpu0", "target": "leaf0"}]}, "edge node0.gpu0 to leaf0: bandwidth"),
    ({"links": [{"source": "node0.gpu0", "target": "leaf0", "bandwidth": 0}]}, "must be above 0"),
    ({"links": [{"source": "a", "target": "leaf0", "bandwidth": 1}]}, "one of them is no node"),
    ({"nodes": [{"id": "x", "kind": "gpux"}], "links": []}, "x has kind 'gpux'; expected one of .*did you mean 'gpu'"),
    ({"nodes": [{"id": "leaf0"}], "links": []}, "the graph has no GPU"),
    ({"nodes": [{"id": "gpu0"}], "links": []}, "does not say its GPU"),
    ({"nodes": 7}, "no node-link JSON"),
])  # fmt: skip
def test_mistakes_in_a_graph(tmp_path, change, message):
    with pytest.raises(TopologyError, match=message) as caught:
        load_topology(_square(tmp_path, **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ['{"nodes": 3, "links": []}', '{"nodes": [{"id": "a"}], "links": [7]}', '{"links": [], "nodes": [1]}']
)
def test_a_graph_that_is_no_node_link_document_is_refused(tmp_path, text):
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(TopologyError, match="this is no node-link JSON or GraphML graph"):
        cluster_of(load_topology(str(path)), 1)
