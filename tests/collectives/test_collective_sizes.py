"""How a collective's time depends on its size: it never falls, and at both ends it has a closed form."""

from itertools import pairwise

import pytest

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.cluster.reading.load import topologies
from llmsim.collectives import ALGORITHMS, OPERATIONS, Group, achieved, plan_collective
from llmsim.collectives.ring import plan as ring_plan
from llmsim.errors import CollectiveError, UserError
from llmsim.standalone.collective import communicator

KIB, MIB, GIB = 2**10, 2**20, 2**30
SIZES = [2.0**power * part for power in range(0, 36) for part in (1, 1.6)]
H100 = {"architecture": "hopper", "scale_up_bandwidth": 450e9, "nvlinks": 18, "nvls": True}


def groups(topology: str) -> set[Group]:
    """What this topology makes of one to many nodes, with one, some and all GPUs of each."""
    found = set()
    for nodes, counts in ((1, (3, None)), (2, (1, None)), (3, (3, None)), (33, (1, None))):
        for gpus_per_node in counts:
            try:
                found.add(communicator(topology, nodes, gpus_per_node).group)
            except UserError:
                continue  # more than the node or the fabric has
    return found


@pytest.mark.parametrize("topology", topologies())
def test_no_collective_takes_longer_than_a_larger_one(topology):
    """Whatever is fixed: nothing, the algorithm, the protocol, or both."""
    for group in groups(topology):
        for operation in OPERATIONS:
            for algorithm in ("auto", *ALGORITHMS):
                fixed = ("LL", "LL128", "Simple") if algorithm in ("auto", "ring", "tree") else ()
                for protocol in ("auto", *fixed):
                    try:
                        times = [plan_collective(operation, s, group, algorithm, protocol).seconds for s in SIZES]
                    except CollectiveError:
                        continue  # it cannot run on this group
                    for (small, less), (large, more) in pairwise(zip(SIZES, times)):
                        assert less <= more * (1 + 1e-12), (group, operation, algorithm, protocol, small, large)
    plan_collective.cache_clear()


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_long_broadcast_streams_once_through_the_ring(ranks):
    """Chunks follow each other, so S bytes take S/B however many members: B is what a port moves."""
    group = Group(ranks, **H100)
    times = [plan_collective("broadcast", size, group, "ring", "Simple").seconds for size in (16 * GIB, 32 * GIB)]
    assert times[1] - times[0] == pytest.approx(16 * GIB / (0.81 * 450e9), rel=1e-6)
    sent = [p.repeat * p.intra_bytes for p in plan_collective("broadcast", GIB, group, "ring").phases]
    assert sum(sent) == pytest.approx(GIB)  # by each member but the last


@pytest.mark.parametrize("staging", ["nvswitch", "host"])
def test_words_of_a_broadcast_stream_at_their_own_rate_or_the_links(staging):
    """LL: SMs write flags beside data at a rate of their own; GPUs that stage in host memory have less than that."""
    rate = collective_constants()["achieved"]["broadcast_ll_rate"]
    group = Group(8, architecture="ampere", scale_up=staging, scale_up_bandwidth=300e9, pcie_bandwidth=32e9)
    times = [plan_collective("broadcast", size, group, "ring", "LL").seconds for size in (256 * MIB, 512 * MIB)]
    expected = rate if staging == "nvswitch" else 0.6 * achieved.port_rate(group)
    assert times[1] - times[0] == pytest.approx(256 * MIB / expected, rel=1e-4)
    assert expected <= rate


@pytest.mark.parametrize("nodes, per_node", [(1, 8), (4, 8), (4, 1)])
@pytest.mark.parametrize("protocol", ["LL", "LL128", "Simple"])
def test_an_all_reduce_of_a_byte_is_latency(nodes, per_node, protocol):
    """Launch, what the protocol adds, and 2 (n - 1) steps, of which 2 (m - 1) leave a node."""
    group = Group(nodes * per_node, nodes, **H100)
    steps, crossings = 2 * (group.ranks - 1), 2 * (nodes - 1)
    took = plan_collective("all_reduce", 1, group, "ring", protocol).seconds
    latency = achieved.start(group, protocol, 1) + (steps - crossings) * achieved.hop(group, protocol)
    latency += crossings * achieved.crossing(group, protocol, 1)
    assert took == pytest.approx(latency, rel=1e-3)
    if protocol == "LL" and nodes == 1:  # 14 steps of 0.88 µs and a launch of 4.3 µs, as published sweeps have it
        assert took == pytest.approx(16.6e-6, rel=0.01)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_broadcast_of_a_byte_streams_through_a_node_and_steps_from_node_to_node(nodes):
    """One latency in all inside a node; over two nodes each of n - 1 steps has its own, one of them the network's."""
    group = Group(8 * nodes, nodes, **H100)
    hops = [achieved.hop(group, "LL")] * (1 if nodes == 1 else 14) + [achieved.crossing(group, "LL", 1)] * (nodes - 1)
    took = plan_collective("broadcast", 1, group, "ring", "LL").seconds
    assert took == pytest.approx(achieved.start(group, "LL", 1) + sum(hops), rel=1e-4)


def hop(operation: str, size: float, protocol: str, nodes: int = 2) -> float:
    """Latency of a step inside a node of a ring on a network (EFA) whose chunks take 52 µs longer."""
    group = Group(8 * nodes, nodes, **H100, fabric="efa")
    phases, _ = ring_plan(operation, size, group, protocol)
    return max(phases[1:], key=lambda phase: phase.repeat).latency - achieved.hop(group, protocol)


def test_only_blocks_of_one_chunk_wait_for_the_network_at_each_step_of_a_simple_ring():
    """A block of many chunks hides all but one of those waits."""
    assert hop("all_reduce", MIB, "Simple") == pytest.approx(52e-6)
    assert hop("all_reduce", 1024 * GIB, "Simple") == pytest.approx(0.0, abs=1e-6)


def test_words_broadcasts_and_single_nodes_wait_for_no_chunks():
    assert hop("all_reduce", MIB, "LL") == hop("all_gather", MIB, "LL128") == hop("broadcast", MIB, "Simple") == 0.0
    assert hop("all_reduce", MIB, "Simple", nodes=1) == 0.0


def test_nodes_reduce_by_a_tree_of_switches_from_two_on():
    """NVLS trees beat rings on H100 whenever there are several nodes; bus bandwidth falls slowly, without a dent."""
    found = [communicator("dgx-h100", nodes).run("all_reduce", 8 * GIB, steps=False) for nodes in (2, 3, 4, 5, 6, 8)]
    assert {result.algorithm for result in found} == {"nvls_tree"}
    assert all(later.busbw > 0.9 * former.busbw for former, later in pairwise(found))
