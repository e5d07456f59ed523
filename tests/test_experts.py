"""Expert parallelism: how tokens reach experts, what overlaps them, and what imbalance costs."""

import pytest

import llmsim
from llmsim.collectives import Group, plan_collective, plan_dispatch
from llmsim.errors import ScenarioError
from llmsim.parallel.schedules import schedule
from llmsim.parallel.schedules.evaluate import evaluate
from llmsim.parallel.schedules.order import parts
from llmsim.parallel.schedules.paired import paired

BASE = {
    "name": "experts",
    "model": {
        **{"layers": 4, "hidden": 2048, "heads": 16, "kv_heads": 4, "ffn_hidden": 4096, "vocab": 32000},
        **{"tied_embeddings": False, "gated_mlp": True, "position": "rope", "norm": "rmsnorm", "bias": False},
        "moe": {"experts": 64, "top_k": 8, "expert_ffn_hidden": 1024},
    },
    "cluster": {"topology": "dgx-h100", "nodes": 4},
    "parallelism": {"ep": 32},
    "training": {"seq_len": 4096, "global_batch": 128, "micro_batch": 1},
    "simulation": {"detail": "block"},
}


def run(**values):
    return llmsim.simulate(llmsim.Scenario(**BASE).with_values(values)).metrics


def group(nodes, per_node=8):
    return Group(
        ranks=nodes * per_node, nodes=nodes, per_node=per_node, architecture="hopper", scale_up="nvswitch",
        scale_up_bandwidth=450e9, nvlinks=18, pcie_bandwidth=64e9, nic_bandwidth=50e9, nics=per_node, fabric="ib",
        rail_aligned=True,
    )  # fmt: skip


def far_bytes(plan):
    return sum(phase.inter_bytes for phase in plan.phases)


def test_a_token_crosses_to_each_node_once():
    size, eight = 8 * 4096 * 2048 * 2.0, group(8)
    plain, once = plan_collective("all_to_all", size, eight), plan_dispatch(size, eight, 8, 0)
    met = 8 * (1 - (7 / 8) ** 8)  # of 8 nodes, by 8 copies
    assert far_bytes(once) / far_bytes(plain) == pytest.approx(met / 8)
    limited = plan_dispatch(size, eight, 8, 4)
    assert far_bytes(limited) / far_bytes(plain) == pytest.approx(4 * (1 - (3 / 4) ** 8) / 8)
    assert limited.seconds < once.seconds < plain.seconds


def test_one_copy_has_nothing_to_spare():
    size = 4096 * 2048 * 2.0
    assert far_bytes(plan_dispatch(size, group(4), 1, 0)) == pytest.approx(
        far_bytes(plan_collective("all_to_all", size, group(4)))
    )


def test_deepep_moves_a_batch_as_fast_as_published():
    """DeepEP's README: 4,096 tokens of 7,168 values in fp8, top 8 in 4 groups, on 8 nodes of H800: 46 GB/s a NIC."""
    h800 = Group(
        ranks=64, nodes=8, per_node=8, architecture="hopper", scale_up="nvswitch", scale_up_bandwidth=200e9,
        nvlinks=8, pcie_bandwidth=64e9, nic_bandwidth=50e9, nics=8, fabric="ib", rail_aligned=True,
    )  # fmt: skip
    token = 7168 * (1 + 4 / 128)
    plan = plan_dispatch(8 * 4096 * token, h800, 8, 4)
    sent = 4096 * token * 4 * (1 - (3 / 4) ** 8)  # its test counts the node of the sender too
    assert sent / plan.seconds == pytest.approx(46e9, rel=0.1)


def test_deduplication_pays_between_nodes():
    plain, once = run(), run(**{"parallelism.dispatch": "deduplicated"})
    assert once["time_breakdown"]["exposed_ep"] < 0.6 * plain["time_breakdown"]["exposed_ep"]
    eighth = run(**{"parallelism.dispatch": "deduplicated", "parallelism.dispatch_dtype": "fp8"})
    assert eighth["iteration_time_s"] < once["iteration_time_s"]


def test_imbalance_lengthens_what_all_wait_for():
    even, skewed = run(), run(**{"parallelism.expert_imbalance": 1.5})
    assert skewed["iteration_time_s"] > 1.02 * even["iteration_time_s"]


def test_experts_communicate_beside_another_micro_batch():
    alone, beside = run(), run(**{"training.overlap.ep": True})
    hidden = alone["iteration_time_s"] - beside["iteration_time_s"]
    assert 0 < hidden < alone["time_breakdown"]["exposed_ep"] + 0.2 * alone["time_breakdown"]["compute"]
    assert sum(beside["time_breakdown"].values()) == pytest.approx(beside["iteration_time_s"])


@pytest.mark.parametrize(("stages", "micro_batches", "chunks"), [(1, 5, 1), (4, 8, 2), (4, 12, 3), (2, 2, 2)])
def test_pairing_keeps_every_pass_and_can_be_played(stages, micro_batches, chunks):
    name = "interleaved" if chunks > 1 else "1f1b"
    plain = schedule(name, stages, micro_batches, chunks)
    joined = paired(plain)
    for before, after in zip(plain.orders, joined.orders):
        assert sorted(before) == sorted(part for op in after for part in parts(op))
    assert evaluate(joined, 1.0, 1.0, 1.0, 0.0) is not None  # no rank waits for ever


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"parallelism.dispatch_dtype": "fp8"}, "parallelism.dispatch_dtype"),
        ({"parallelism.pp": 2, "parallelism.ep": 16, "training.overlap.ep": True}, "training.overlap.ep"),
        ({"parallelism.expert_imbalance": 0.5}, "parallelism.expert_imbalance"),
    ],
)
def test_what_does_not_go_together_is_said(values, key):
    with pytest.raises(ScenarioError) as caught:
        run(**values)
    assert key in str(caught.value) and "expected" in str(caught.value)


@pytest.mark.parametrize("kind", ["ring", "all_gather", "ulysses"])
def test_every_kind_of_context_parallelism_does_the_same_arithmetic(kind):
    dense = {"model": "llama3-8b", "parallelism.ep": 1, "training.seq_len": 32768, "cluster.nodes": 1}
    one = run(**dense, **{"training.global_batch": 8})
    two = run(**dense, **{"training.global_batch": 8, "parallelism.cp": 4, "parallelism.cp_kind": kind})
    assert two["hardware_tflops_per_gpu"] * two["iteration_time_s"] == pytest.approx(
        one["hardware_tflops_per_gpu"] * one["iteration_time_s"], rel=1e-6
    )
    exposed = two["time_breakdown"]["exposed_cp"]
    assert exposed < 0.01 * two["iteration_time_s"] if kind == "ring" else exposed > 0  # a ring hides what it passes on


def test_ulysses_needs_heads_to_spread():
    with pytest.raises(ScenarioError, match=r"parallelism.cp: .* expected a divisor"):
        run(**{"parallelism.ep": 1, "parallelism.cp": 32, "parallelism.cp_kind": "ulysses", "training.seq_len": 8192})
