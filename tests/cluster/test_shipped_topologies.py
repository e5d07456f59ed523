"""Every topology that llmsim ships, at layouts that people use: it runs, and its groups of any shape have a time."""

import numpy as np
import pytest

import llmsim
from llmsim.cluster.cluster_of import cluster_of
from llmsim.cluster.groups import describe_group
from llmsim.cluster.reading.load import load_topology, topologies
from llmsim.cluster.traffic import ring_traffic
from llmsim.collectives import plan_collective
from llmsim.standalone.collective import communicator

SMALL = {"layers": 4, "hidden": 512, "heads": 16, "kv_heads": 16, "ffn_hidden": 1024, "vocab": 4096}
EXPERTS = SMALL | {"moe": {"experts": 16, "top_k": 2, "expert_ffn_hidden": 256}}


def nodes_of(topology):
    return 1 if topology.network.kind == "none" else 2


def layouts(name):
    """(what it is, model, keys of parallelism) at which a node's GPUs, and two nodes, are cut."""
    topology = load_topology(name)
    nodes, gpus = nodes_of(topology), topology.node.gpus
    used = min(gpus, 8)
    yield "tp 1", SMALL, {}
    yield "tp = node", SMALL, {"tp": used}
    yield "zero 3", SMALL, {"zero": 3}
    yield "ep in nodes", EXPERTS, {"ep": used, "zero": 1}
    yield "ep over nodes", EXPERTS, {"ep": nodes * used}
    yield "cp in nodes", SMALL, {"cp": used}
    yield "cp over nodes", SMALL, {"cp": nodes * used}
    if nodes > 1:
        yield "pp over nodes", SMALL, {"pp": 2, "tp": used}
        yield "a rank of a node in each group", SMALL, {"tp": 2, "order": ["dp", "pp", "cp", "ep", "tp"]}


CASES = [(name, *layout) for name in topologies() for layout in layouts(name)]


@pytest.mark.parametrize("name, about, model, parallelism", CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES])
def test_every_shipped_topology_runs_every_common_layout(name, about, model, parallelism):
    topology = load_topology(name)
    scenario = llmsim.Scenario(
        name=about,
        model=model,
        cluster={"topology": name, "nodes": nodes_of(topology), "gpus_per_node": min(topology.node.gpus, 8)},
        parallelism=parallelism,
        training={"global_batch": 32, "seq_len": 1024, "precision": "fp16"},
        simulation={"detail": "block"},
    )
    metrics = llmsim.simulate(scenario).metrics
    assert 0 < metrics["iteration_time_s"] < 10
    assert sum(metrics["time_breakdown"].values()) == pytest.approx(metrics["iteration_time_s"], rel=1e-6)


@pytest.mark.parametrize("name", topologies())
def test_collectives_of_every_width_run_on_every_shipped_topology(name):
    topology = load_topology(name)
    for nodes in range(1, 4 if topology.network.kind != "none" else 2):
        for used in sorted({1, 2, 3, min(topology.node.gpus, 5), min(topology.node.gpus, 8)}):
            if used > topology.node.gpus:
                continue
            group = communicator(topology, nodes, used)
            for operation in ("all_reduce", "all_gather", "broadcast", "all_to_all", "send_recv"):
                small, large = (group.run(operation, size, steps=False).time_s for size in (1e4, 1e8))
                assert nodes * used == 1 or 0 < small < large, (nodes, used, operation)


@pytest.mark.parametrize("name", topologies())
def test_groups_of_strange_shapes_are_described_on_every_shipped_topology(name):
    """Members at odd places, and unlike numbers of them in the nodes."""
    topology = load_topology(name)
    nodes = 3 if topology.network.kind != "none" else 1
    cluster = cluster_of(topology, nodes)
    everyone, rng = np.arange(cluster.gpus), np.random.default_rng(7)
    for _ in range(20):
        row = np.sort(rng.choice(everyone, size=rng.integers(1, min(cluster.gpus, 12) + 1), replace=False))
        group = describe_group(ring_traffic("odd", row[None, :], cluster, everyone, {}), cluster, everyone, 0)
        assert group.ranks == len(row)
        assert plan_collective("all_reduce", 1e6, group).seconds > 0 or len(row) == 1
