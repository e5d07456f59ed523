"""Expert parallelism: how tokens reach experts, what overlaps them, and what imbalance costs."""

from dataclasses import replace

import pytest

import llmsim
from llmsim.collectives import Group, plan_collective, plan_dispatch
from llmsim.errors import ScenarioError
from llmsim.model.layer import Shard, layer_steps
from llmsim.model.mapping import architecture_from_mapping
from llmsim.model.work import MemoryBound
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


@pytest.mark.parametrize(("ranks", "published"), [(8, 704e9), (32, 600e9)])
def test_hybridep_moves_a_batch_over_nvlink_as_fast_as_published(ranks, published):
    """Its README: 4,096 tokens of 7,168 16-bit values, top 8, on B200 and GB200, mean of dispatch and combine."""
    rack = Group(
        ranks=ranks, nodes=1, per_node=ranks, architecture="blackwell", scale_up="nvswitch", scale_up_bandwidth=900e9,
        nvlinks=18, pcie_bandwidth=64e9, nic_bandwidth=50e9, nics=ranks, fabric="ib", rail_aligned=True,
    )  # fmt: skip
    token = 7168 * 2.0
    arriving = 4096 * token * ranks * (1 - (1 - 1 / ranks) ** 8)  # once to each GPU, the sender's own included
    assert arriving / plan_dispatch(8 * 4096 * token, rack, 8, 0).seconds == pytest.approx(published, rel=0.13)


def test_deduplication_pays_between_nodes():
    plain, once = run(), run(**{"parallelism.dispatch": "deduplicated"})
    assert once["time_breakdown"]["exposed_ep"] < 0.6 * plain["time_breakdown"]["exposed_ep"]
    eighth = run(**{"parallelism.dispatch": "deduplicated", "parallelism.dispatch_dtype": "fp8"})
    assert eighth["iteration_time_s"] < once["iteration_time_s"]


def test_imbalance_lengthens_what_all_wait_for():
    even, skewed = run(), run(**{"parallelism.expert_imbalance": 1.5})
    assert skewed["iteration_time_s"] > 1.02 * even["iteration_time_s"]


def test_the_host_reads_token_counts_once_a_layer_and_micro_batch():
    host = {"experts": "2 ms", "experts_backward": "5 ms"}
    for detail in ("block", "kernel"):
        ahead, waiting = (run(**{"simulation.detail": detail, "training.host": h}) for h in ("ahead", host))
        # Four layers of four micro-batches; a little of the gradients' reduction hides beside the last waits.
        assert waiting["iteration_time_s"] - ahead["iteration_time_s"] == pytest.approx(4 * 4 * 7e-3, rel=2e-3)
    assert run(**{"training.host": "megatron"})["iteration_time_s"] > ahead["iteration_time_s"]
    capacity = {"model": BASE["model"] | {"moe": BASE["model"]["moe"] | {"capacity_factor": 1.0}}}
    waited, not_waited = (run(**capacity, **{"training.host": h})["iteration_time_s"] for h in (host, "ahead"))
    assert waited == not_waited  # a capacity is known beforehand


NARROW = {"cluster.topology": "dgx-b200", "training.precision": "fp8", "parallelism.ep": 8, "cluster.nodes": 1}


def test_fused_kernels_of_experts_wait_for_nobody_and_move_less():
    values = NARROW | {"parallelism.dispatch": "deduplicated"}
    separate = run(**values)
    fused = run(**values, **{"training.expert_kernels": "fused"})
    assert fused["iteration_time_s"] < 0.95 * separate["iteration_time_s"]
    products = [m["hardware_tflops_per_gpu"] * m["iteration_time_s"] for m in (separate, fused)]
    assert products[1] == pytest.approx(products[0], rel=1e-9)
    waiting = run(**values, **{"training.expert_kernels": "fused", "training.host": "megatron"})
    assert waiting["iteration_time_s"] == fused["iteration_time_s"]


def moved(arch, **values):
    """Bytes of the memory-bound kernels of a layer of experts, for 4096 tokens over 8 ranks."""
    steps = layer_steps(arch, Shard(1, 4096, ep=8, precision="fp8", **values), "moe")
    return sum(s.work.bytes for s in (*steps.forward, *steps.backward) if isinstance(s.work, MemoryBound))


def test_what_dispatch_copies():
    """All-to-all: a permutation and its inverse, two sorts, two paddings; the weighted sum reads the copies once more.
    Deduplicated: copies are made where tokens arrive, and added up there."""
    arch = architecture_from_mapping(BASE["model"], "experts")
    copies = 4096 * 8 * 2048 * 2
    arrived = copies * (1 - (7 / 8) ** 8)
    plain = 4 * (copies + copies / 8) + copies + 2 * 4 * 2 * copies
    difference = moved(arch) - moved(arch, dispatch="deduplicated")
    assert difference == pytest.approx(plain - 4 * (arrived + copies), rel=1e-6)


def test_biases_and_clamps_of_experts_take_passes():
    arch = architecture_from_mapping(BASE["model"], "experts")
    biased = replace(arch, mlp_bias=True, clamped_glu=True)
    outputs, gates = 4096 * 8 * 2048, 4096 * 8 * 2 * 1024
    # 16-bit: product, sum and join, 12 bytes a value each way; clamp, clamp and join, 8 and 10 bytes.
    assert moved(biased) - moved(arch) == pytest.approx(24 * outputs + 18 * gates, rel=1e-6)
    # With DeepEP's fp32 probabilities the sums are fp32, and converted back.
    once = {"dispatch": "deduplicated"}
    assert moved(biased, **once) - moved(arch, **once) == pytest.approx(64 * outputs + 18 * gates, rel=1e-6)
    fused = once | {"expert_kernels": "fused"}
    assert moved(biased, **fused) == moved(arch, **fused) < moved(arch, **once)


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
        ({"training.expert_kernels": "fused"}, "training.expert_kernels"),
        ({"training.expert_kernels": "fused", "training.precision": "fp8"}, "training.expert_kernels"),
        ({"training.expert_kernels": "one"}, "training.expert_kernels"),
        ({"training.host": "megatronn"}, "training.host"),
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
