"""Which traffic crosses what: conservation, and the same however it is simulated."""

import pytest

import llmsim
from llmsim.analysis.traffic import traffic_per_gpu
from llmsim.plots import plot_traffic

TINY = {"layers": 8, "hidden": 1024, "heads": 16, "vocab": 32000, "tied_embeddings": False, "position": "rope"}


def network(layout, detail="kernel", fold="auto", **cluster):
    scenario = {
        "name": "crossing",
        "model": TINY,
        "cluster": {"topology": "dgx-a100", "nodes": 4, **cluster},
        "parallelism": layout,
        "training": {"seq_len": 1024, "global_batch": 32, "recompute": "none"},
        "simulation": {"detail": detail, "fold": fold},
    }
    return llmsim.simulate(scenario).metrics["network"]


def test_stages_pass_on_what_the_model_says():
    """Activations and their gradients, s x b x h x 2 bytes shared by tp ranks, over the NICs between two nodes each."""
    found = network({"tp": 8, "pp": 4})
    sends = 32 * 2 * 3  # micro-batches, both ways, boundaries
    assert found["bytes"]["nic"]["pp"] == pytest.approx(sends * 1024 * 1024 * 2 * 2)  # out of one NIC, into another
    assert "tp" not in found["bytes"]["nic"] and found["bytes"]["nvlink"]["tp"] > 0


def test_gradients_cross_each_node_once():
    """A ring all-reduce of S bytes over n ranks on m nodes: 2 (n-1)/n S out of each node, through all of its NICs."""
    found = network({"tp": 1, "pp": 1})
    scenario = {"name": "n", "model": TINY, "cluster": {"topology": "dgx-a100"}, "training": {"global_batch": 8}}
    gradients = llmsim.simulate(scenario).metrics["parameters"] * 4  # fp32
    assert found["bytes"]["nic"]["dp"] == pytest.approx(2 * 31 / 32 * gradients * 4 * 2, rel=1e-3)  # in and out


@pytest.mark.parametrize("layout", [{"tp": 4, "pp": 2}, {"tp": 2, "pp": 4, "zero": 1}, {"zero": 3}])
def test_the_same_folded_or_not_and_in_blocks(layout):
    first, *others = (network(layout, d, f) for d, f in (("kernel", "auto"), ("kernel", "off"), ("block", "auto")))
    for other in others:
        assert other["bytes"].keys() == first["bytes"].keys()
        for kind, groups in first["bytes"].items():
            assert other["bytes"][kind] == pytest.approx(groups, rel=1e-9)


def test_the_hottest_link_is_where_ranks_were_put():
    packed, spread = (network({"tp": 8}, rank_map=where)["hottest"] for where in (None, "round-robin"))
    assert spread[0]["kind"] == "nic" and "tp" in spread[0]["bytes"]
    assert all("tp" not in link["bytes"] for link in packed if link["kind"] == "nic")
    assert all(0 < link["utilization"] <= 1.0 for link in (*packed, *spread))


def test_traffic_per_gpu_and_its_picture():
    """8 GPUs, tp 4: the mean over GPUs of what the metrics count, and a picture that names it."""
    metrics = llmsim.simulate(
        llmsim.Scenario(
            name="eight",
            model={"layers": 4, "hidden": 1024, "heads": 16, "vocab": 32000},
            cluster={"topology": "dgx-a100", "nodes": 2, "gpus_per_node": 4},
            parallelism={"tp": 4, "sequence_parallel": False},
            training={"seq_len": 1024, "global_batch": 2, "recompute": "none"},
        )
    ).metrics
    table = traffic_per_gpu(metrics)
    assert list(table) == ["tp", "dp"]
    assert set(table["tp"]) == {"nvlink"} and {"pcie", "nic"} <= set(table["dp"])
    for group, kinds in table.items():
        for kind, amount in kinds.items():
            assert amount == pytest.approx(metrics["network"]["bytes"][kind][group] / 8)
    figure = plot_traffic(metrics)
    words = {text.get_text() for axes in figure.axes for text in (*axes.get_yticklabels(), *axes.texts)}
    assert {"NVLink", "PCIe", "NIC"} <= words
    assert any(metrics["network"]["hottest"][0]["link"].split("->")[0] in word for word in words)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"tensor parallel", "data parallel"}


def test_one_gpu_sends_nothing():
    metrics = {"gpus": 1, "network": {"bytes": {}, "hottest": []}}
    assert traffic_per_gpu(metrics) == {}
    assert [text.get_text() for text in plot_traffic(metrics).axes[0].texts] == ["no GPU sends anything to another one"]


@pytest.mark.parametrize("zero", [1, 2])
def test_hybrid_sharding_of_optimizer_states(zero):
    """Shard groups of one node: scatter and gather stay on NVLink, a share's all-reduce alone crosses the NICs."""
    base = {
        "name": "hybrid",
        "model": TINY,
        "cluster": {"topology": "dgx-a100", "nodes": 4},
        "training": {"seq_len": 1024, "global_batch": 32, "grad_dtype": "fp32", "precision": "bf16"},
    }
    hybrid, plain = (
        llmsim.simulate(llmsim.Scenario(**base, parallelism={"zero": zero, "hsdp": group})).metrics
        for group in (8, None)
    )
    size = hybrid["parameters"]
    table = traffic_per_gpu(hybrid)
    up_and_down = 2  # to the switch and from it
    assert table["shard"] == {"nvlink": pytest.approx(7 / 8 * size * (4 + 2) * up_and_down, rel=1e-3)}
    # two nodes of a ring of four send 2 x 3/4 of a share each way: out of one NIC, into another
    assert table["replica"]["nic"] == pytest.approx(2 * (2 * 3 / 4) * size / 8 * 4, rel=1e-3)
    assert "dp" not in table and "shard" not in traffic_per_gpu(plain)
    states = [metrics["memory"]["per_stage"][0]["optimizer_gib"] for metrics in (hybrid, plain)]
    assert states[0] == pytest.approx(4 * states[1], rel=1e-3)
