"""A collective played on a cluster: events against closed forms, faults, bytes on links, and the command."""

import json

import pytest

import llmsim
from llmsim.cli import main
from llmsim.cluster.reading.load import topologies
from llmsim.collectives import OPERATIONS
from llmsim.errors import CatalogueError, CollectiveError, SimulationError, TopologyError
from llmsim.standalone.collective import communicator

MIB, GIB = 2**20, 2**30


def test_every_step_of_a_ring_over_16384_ranks_is_an_event():
    played = llmsim.simulate_collective("all_reduce", GIB, "dgx-h100", 2048, algorithm="ring")
    assert len(played.trace) == 2 * 16383 + 1 and played.events >= 2 * 16383
    merged = llmsim.simulate_collective("all_reduce", GIB, "dgx-h100", 2048, algorithm="ring", steps=False)
    assert merged.events < 10
    assert merged.time_s == pytest.approx(played.time_s, rel=1e-9)
    assert played.plan.seconds == pytest.approx(played.time_s, rel=1e-9)


@pytest.mark.parametrize("operation", ["all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all"])
@pytest.mark.parametrize("topology,nodes", [("dgx-h100", 1), ("dgx-a100", 3), ("abci-v100", 2), ("hgx-mi300x", 2)])
def test_alone_on_a_healthy_cluster_it_takes_what_its_plan_says(operation, topology, nodes):
    played = llmsim.simulate_collective(operation, "64 MiB", topology, nodes)
    assert played.time_s == pytest.approx(played.plan.seconds, rel=1e-9)
    assert played.busbw > 0 and played.algorithm != "auto"
    trace = played.trace
    assert trace["start_s"].iloc[0] == 0.0 and trace["end_s"].iloc[-1] == played.time_s
    assert (trace["start_s"].iloc[1:].to_numpy() == trace["end_s"].iloc[:-1].to_numpy()).all()


def test_every_shipped_topology_plays_every_collective():
    for topology in topologies():
        for operation in OPERATIONS:
            played = llmsim.simulate_collective(operation, GIB, topology, 2, steps=False)
            assert 0 < played.busbw < played.ranks * 1e12, (topology, operation)


def test_rings_of_a_mesh_fill_all_of_its_links_and_pairs_of_a_bridge_know_their_link():
    whole = llmsim.simulate_collective("all_reduce", 4 * GIB, "dgx-v100", 1)
    assert whole.time_s == pytest.approx(whole.plan.seconds, rel=1e-9)
    assert whole.links["nvlink"]["links"] == 32  # each of 16 pairs that are wired, both ways
    pair = communicator("h100-pcie-pairs", 1, 2).group
    assert (pair.scale_up, pair.scale_up_bandwidth) == ("cube-mesh", 300e9)
    assert communicator("h100-pcie-pairs", 1, 8).group.scale_up == "pcie"
    assert communicator("dgx-v100", 1, 2).group.scale_up_bandwidth == pytest.approx(25e9)  # GPUs 0 and 1: one link


def test_racks_reduce_through_fewer_ways_than_they_have_nics():
    """Published: 839 GB/s in one GB200 rack, 811 over two, 406 over twenty."""
    busbw = [
        llmsim.simulate_collective("all_reduce", 16 * GIB, "gb200-nvl72", nodes, steps=False).busbw / 1e9
        for nodes in (1, 2, 20)
    ]
    assert busbw == pytest.approx([839, 811, 406], rel=0.12)


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_bytes_on_links_are_the_closed_form(nodes):
    size, n = 1e9, 8 * nodes
    ring = llmsim.simulate_collective("all_reduce", size, "dgx-h100", nodes, algorithm="ring")
    sent = sum(used["bytes"] for kind, used in ring.links.items() if kind in ("nvlink", "nic")) / 2  # out and in
    assert sent == pytest.approx(2 * (n - 1) * size)
    if nodes > 1:  # a ring passes each node once, each channel through another NIC
        assert ring.links["nic"]["busiest_bytes"] == pytest.approx(2 * (n - 1) / n * size / 8)
    exchange = llmsim.simulate_collective("all_to_all", size, "dgx-h100", nodes)
    outside = exchange.links.get("nic", {"bytes": 0.0})["bytes"] / 2
    assert outside == pytest.approx(size * (n - 8))


def test_an_exchange_fills_an_oversubscribed_leaf_and_a_ring_hardly_crosses_it():
    narrow = {"nodes": 64, "overrides": {"network.oversubscription": 4, "network.leaf_nodes": 8}}
    even = {"nodes": 64, "overrides": {"network.leaf_nodes": 8}}

    def slower(operation, algorithm):
        times = [
            llmsim.simulate_collective(operation, GIB, "hgx-h100-roce", algorithm=algorithm, **where).time_s
            for where in (narrow, even)
        ]
        return times[0] / times[1]

    assert slower("all_to_all", "p2p") > 2.5
    assert slower("all_reduce", "ring") == pytest.approx(1.0, abs=0.01)


def test_hashed_flows_collide_where_spread_ones_do_not():
    spread, hashed, again = (
        llmsim.simulate_collective("all_to_all", GIB, "hgx-h100-roce", 64, routing=routing, seed=1)
        for routing in ("ideal", "ecmp-hash", "ecmp-hash")
    )
    assert hashed.time_s > spread.time_s
    assert hashed.time_s == again.time_s


def test_one_slow_link_slows_the_whole_ring():
    healthy = communicator("dgx-h100", 16).run("all_reduce", GIB, "ring", "Simple")
    slow = communicator("dgx-h100", 16, slow_links={"node3.nic2": 0.25}).run("all_reduce", GIB, "ring", "Simple")
    assert slow.time_s > 2.5 * healthy.time_s


def test_mistakes_are_sentences():
    with pytest.raises(CatalogueError, match="did you mean"):
        llmsim.simulate_collective("all_reduce", 1, "dgx-h10")
    with pytest.raises(CollectiveError, match="all_redce"):
        llmsim.simulate_collective("all_redce", 1, "dgx-h100")
    with pytest.raises(CollectiveError, match="-5"):
        llmsim.simulate_collective("all_reduce", -5, "dgx-h100")
    with pytest.raises(TopologyError, match="node9"):
        llmsim.simulate_collective("all_reduce", 1, "dgx-h100", 2, slow_links={"node9.nic0": 0.5})
    with pytest.raises(SimulationError, match="down"):
        llmsim.simulate_collective("all_reduce", 1, "dgx-h100", 2, slow_links={"node1.nic*": 0.0})


def test_seven_of_eight_nics_carry_seven_eighths():
    """Of long sends between nodes; what is lost of the line rate is lost of the share that is achieved, 0.955."""
    for name, nics in (("dgx-h100", 8), ("dgx-v100", 4)):
        healthy = llmsim.simulate_collective("send_recv", 8 * GIB, name, 2, steps=False).time_s
        broken = llmsim.simulate_collective("send_recv", 8 * GIB, name, 2, steps=False, slow_links={"node0.nic1": 0})
        assert healthy / broken.time_s == pytest.approx((nics - 1) / nics / 0.955, rel=0.005)


def test_the_command_prints_what_python_returns(capsys, tmp_path):
    trace = tmp_path / "steps.csv"
    with pytest.raises(SystemExit) as done:
        main(["collective", "all_gather", "--topology", "dgx-a100", "--nodes", "2", "--sizes", "1MiB-64MiB", "--json",
              "--trace", str(trace), "--plot", str(tmp_path / "busbw.png")])  # fmt: skip
    assert done.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["size"] for row in document["rows"]] == [MIB * 2**k for k in range(7)]
    assert document["gpus"] == 16
    for row in document["rows"]:
        same = llmsim.simulate_collective("all_gather", row["size"], "dgx-a100", 2)
        assert (row["time_s"], row["busbw"]) == pytest.approx((same.time_s, same.busbw), rel=1e-9)
    assert len(trace.read_text().splitlines()) == 15 + 2  # header, start, n - 1 steps
    assert (tmp_path / "busbw.png").stat().st_size > 10_000


def test_the_table_for_people(capsys):
    with pytest.raises(SystemExit) as done:
        main(["collective", "all_reduce", "--topology", "dgx-h100", "--sizes", "8MiB,1GiB"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert "busbw (GB/s)" in out and "nvls" in out and "nvlink" in out
