"""Latencies that a topology states reach every collective and every transfer that crosses the link."""

import pytest

import llmsim

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "send_recv")
MILLI = 1e-3


def seconds(operation, topology="dgx-h100", nodes=2, algorithm="auto", gpus=None, **overrides):
    found = llmsim.simulate_collective(
        operation, size="64 KiB", topology=topology, nodes=nodes, gpus_per_node=gpus, algorithm=algorithm,
        overrides={key.replace("__", "."): value for key, value in overrides.items()},
    )  # fmt: skip
    return found.time_s


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("key", ["node__nic__latency", "network__latency", "node__pcie__latency"])
def test_latencies_between_nodes_count(operation, key):
    """A message crosses at least one switch, and at least the NIC and PCIe link of both ends."""
    least = MILLI if key == "network__latency" else 2 * MILLI
    assert seconds(operation, **{key: "1 ms"}) - seconds(operation) >= 0.99 * least


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "topology, key",
    [
        ("dgx-h100", "node__scale_up_latency"),
        ("abci-v100", "node__scale_up_latency"),
        ("pcie-a100-box", "node__pcie__latency"),
    ],
)
def test_latencies_inside_a_node_count(operation, topology, key):
    plain, slow = (seconds(operation, topology, nodes=1, **values) for values in ({}, {key: "1 ms"}))
    assert slow - plain >= 0.99 * MILLI


def test_a_ring_pays_the_latency_at_each_of_its_crossings():
    """2(n − 1) steps of an all-reduce over n nodes of one GPU, two NICs each."""
    ring = {"nodes": 4, "gpus": 1, "algorithm": "ring"}
    one, other = (seconds("all_reduce", **ring, node__nic__latency=latency) for latency in ("1 ms", "2 ms"))
    assert other - one == pytest.approx(2 * 3 * 2 * MILLI, rel=1e-6)


@pytest.mark.parametrize("topology", ["dgx-h100", "dgx-a100", "hgx-h100-roce"])
def test_the_latencies_of_shipped_topologies_are_those_that_the_constants_hold(topology):
    from llmsim.standalone.collective import communicator

    group = communicator(topology, 2, None).group
    assert group.fabric_latency == pytest.approx(0.0, abs=1e-12)
    assert group.local_latency == pytest.approx(0.0, abs=1e-12)


def test_latency_reaches_a_training_iteration():
    scenario = {"name": "t", "model": "gpt3-1.3b", "cluster": {"topology": "dgx-h100", "nodes": 2},
                "training": {"seq_len": 1024, "global_batch": 16}}  # fmt: skip
    plain = llmsim.simulate(scenario).metrics["iteration_time_s"]
    for key in ("node.nic.latency", "network.latency", "node.pcie.latency"):
        slow = scenario | {"cluster": scenario["cluster"] | {"overrides": {key: "50 ms"}}}
        assert llmsim.simulate(slow).metrics["iteration_time_s"] > plain + 0.05
