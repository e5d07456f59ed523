"""Every key of a scenario, of an inline model and of a topology file changes some answer.

A new key needs a line here: a scenario in which it matters, and a value other than it has there.
"""

from dataclasses import fields
from typing import Any

import pytest

import llmsim
from llmsim.cluster.describe import describe
from llmsim.cluster.reading.keys import KEYS
from llmsim.cluster.reading.load import load_topology
from llmsim.errors import UserError
from llmsim.model.architecture import Architecture
from llmsim.model.sublayers import Indexer, LinearAttention, Mla, Moe, Projector
from llmsim.scenario.complaints import known_keys
from llmsim.scenario.overrides import overridden
from llmsim.scenario.schema import Scenario

LABELS = {"name", "description"}  # of a scenario: they change nothing by design
CHECKED = {"parallelism.dp"}  # follows from other keys, and is refused where it contradicts them

DENSE = {"layers": 4, "hidden": 1024, "heads": 16, "kv_heads": 4, "ffn_hidden": 2048, "vocab": 8192, "gated_mlp": True}
EXPERTS = DENSE | {"moe": {"experts": 16, "top_k": 2, "expert_ffn_hidden": 512}}
SEEING = DENSE | {
    "encoder": {"layers": 2, "hidden": 512, "heads": 8, "ffn_hidden": 1024, "patch_inputs": 588},
    "encoder_tokens": 64,
    "projector": {"hidden": [1024]},
}
BASE = {
    "name": "base",
    "model": DENSE,
    "cluster": {"topology": "dgx-h100", "nodes": 2},
    "training": {"seq_len": 2048, "global_batch": 32, "tokens": 1e9},
    "simulation": {"detail": "block"},
}
SLOW_GPU = [{"kind": "slow_gpu", "gpu": "node0.gpu1", "factor": 0.5}]
SLOW_LINK = [{"kind": "slow_link", "link": "node0.nic1", "factor": 0.2}]
STALL = [{"kind": "loader_stall", "factor": 0.001}]
OTHERS = [{"from": "node0", "to": "node1", "rate": "80 GB/s"}]
TO_CPU = {"parallelism.zero": 3, "training.offload": {"optimizer": "cpu", "parameters": "cpu"}}
TO_DISK = {"parallelism.zero": 3, "training.offload": {"optimizer": "nvme", "parameters": "nvme"}}
LOADING = {"data.storage": {"bandwidth": "1 MB/s"}, "data.workers": 2}
KERNELS = {"simulation.detail": "kernel"}
PIPELINE = {"parallelism.pp": 4, "parallelism.tp": 2}
INTERLEAVED = {"parallelism.pp": 2, "parallelism.schedule": "interleaved", "model": DENSE | {"layers": 8}}
GROUPED = {"model": EXPERTS, "parallelism.ep": 8, "parallelism.zero": 1}
GB200 = {"cluster.topology": "dgx-b200", "model": EXPERTS, "training.precision": "fp8"}

# key: (what the base has besides, value of the key)
SCENARIO: dict[str, tuple[dict[str, Any], Any]] = {
    "model": ({}, "gpt2"),
    "cluster.topology": ({}, "dgx-a100"),
    "cluster.nodes": ({}, 1),
    "cluster.gpus_per_node": ({}, 4),
    "cluster.overrides": ({}, {"node.nic.bandwidth": "10 Gbps"}),
    "cluster.routing": ({"cluster.nodes": 64, "training.global_batch": 512}, "ecmp-hash"),
    "cluster.rank_map": ({"parallelism.tp": 2}, "round-robin"),
    "parallelism.tp": ({}, 2),
    "parallelism.pp": ({}, 2),
    "parallelism.vpp": (INTERLEAVED | {"parallelism.vpp": 2}, 4),
    "parallelism.cp": ({}, 2),
    "parallelism.ep": ({"model": EXPERTS}, 4),
    "parallelism.etp": ({"model": EXPERTS, "parallelism.tp": 4}, 4),
    "parallelism.cp_kind": ({"parallelism.cp": 2}, "all_gather"),
    "parallelism.dispatch": (GROUPED, "deduplicated"),
    "parallelism.dispatch_dtype": (GROUPED | {"parallelism.dispatch": "deduplicated"}, "fp8"),
    "parallelism.expert_imbalance": (GROUPED, 2.0),
    "parallelism.sequence_parallel": ({"parallelism.tp": 4}, False),
    "parallelism.schedule": (PIPELINE, "gpipe"),
    "parallelism.regather": ({"parallelism.tp": 4}, False),
    "parallelism.scatter_gather": (PIPELINE | {"parallelism.sequence_parallel": False}, False),
    "parallelism.zero": ({}, 3),
    "parallelism.hsdp": ({"parallelism.zero": 3}, 8),
    "parallelism.reshard": ({"parallelism.zero": 3, "training.global_batch": 64}, False),
    "parallelism.order": ({"parallelism.tp": 2}, ["dp", "cp", "ep", "pp", "tp"]),
    "parallelism.stage_layers": ({"parallelism.pp": 2}, [3, 1]),
    "training.framework": ({}, "torchtitan"),
    "training.seq_len": ({}, 1024),
    "training.images": ({"model": SEEING}, 2),
    "training.global_batch": ({}, 64),
    "training.micro_batch": ({}, 2),
    "training.precision": ({}, "fp16"),
    "training.grad_dtype": ({}, "bf16"),
    "training.grad_reduction": ({"parallelism.zero": 1}, "all_reduce"),
    "training.recompute.mode": ({}, "full"),
    "training.recompute.layers": ({"training.recompute.mode": "full"}, 1),
    "training.recompute.modules": ({"training.recompute.mode": "selective"}, ["core_attn", "mlp"]),
    "training.activation_input": ({}, "fp8"),
    "training.attention_output": ({}, "e5m6"),
    "training.attention": ({}, "unfused"),
    "training.loss_chunks": ({}, 8),
    "training.fused": ({}, False),
    "training.expert_kernels": (GB200, "fused"),
    "training.optimizer": ({}, "sgd"),
    "training.overlap.grad_reduce": ({"training.bucket": 1e6}, False),
    "training.overlap.param_gather": ({"parallelism.zero": 1}, False),
    "training.overlap.pipeline": (PIPELINE, False),
    "training.overlap.ep": ({"model": EXPERTS, "parallelism.ep": 8, "training.global_batch": 64}, True),
    "training.overlap.tp": ({"parallelism.tp": 4}, True),
    "training.overlap.tp_grad": ({"parallelism.tp": 4, "parallelism.sequence_parallel": False}, False),
    "training.accumulate_locally": ({"training.global_batch": 64}, False),
    "training.bucket": ({}, 1e6),
    "training.host.kernel": ({}, "1 ms"),
    "training.host.communication": ({"parallelism.tp": 2, "training.host.kernel": "10 us"}, "1 ms"),
    "training.host.tensor": ({}, "1 ms"),
    "training.host.stall": ({"parallelism.pp": 2, "parallelism.tp": 8, "training.host.kernel": "1 ms"}, 0.5),
    "training.host.experts": ({"model": EXPERTS}, "1 ms"),
    "training.host.experts_backward": ({"model": EXPERTS}, "1 ms"),
    "training.offload.optimizer": ({"parallelism.zero": 1}, "cpu"),
    "training.offload.activations": ({}, "cpu"),
    "training.offload.parameters": ({"parallelism.zero": 3, "training.offload.optimizer": "cpu"}, "cpu"),
    "training.tokens": ({}, 2e9),
    "data.dataset": ({}, "c4"),
    "data.dataset_tokens": ({}, 1e8),
    "data.bytes_per_token": (LOADING, 8.0),
    "data.storage.kind": (
        {"data.storage.kind": "shared", "cluster.overrides": {"storage.read_bandwidth": 1e6}},
        "nvme",
    ),
    "data.storage.bandwidth": (LOADING, "10 GB/s"),
    "data.storage.latency": (LOADING, "1 s"),
    "data.worker_rate": (LOADING, 100.0),
    "data.workers": (LOADING | {"data.storage.latency": "1 s"}, 1),
    "data.prefetch": (LOADING | {"simulation.iterations": 3}, 0),
    "data.epochs": ({"data.dataset_tokens": 1e8, "training.tokens": None}, 2.0),
    "simulation.iterations": (LOADING | {"data.prefetch": 1}, 4),
    "simulation.detail": ({}, "kernel"),
    "simulation.fold": ({}, "off"),
    "simulation.jitter": (KERNELS, 0.2),
    "simulation.seed": (KERNELS | {"simulation.jitter": 0.2}, 1),
    "simulation.calibration": ({}, "faster.yaml"),
    "faults.kind": ({"faults": SLOW_LINK}, "link_down"),
    "faults.gpu": ({"faults": SLOW_GPU, **PIPELINE, "parallelism.stage_layers": [2, 1, 1, 0]}, "node1.gpu7"),
    "faults.node": ({**LOADING, "faults": STALL}, "node1"),
    "faults.link": ({"faults": SLOW_LINK, **GROUPED}, "node0.gpu1->nvswitch"),
    "faults.factor": ({"faults": SLOW_GPU}, 0.9),
    "faults.from": ({"faults": SLOW_GPU}, "10 ms"),
    "faults.until": ({"faults": SLOW_GPU}, "10 ms"),
    "background.from": ({"background": OTHERS}, "node0.gpu1"),
    "background.to": ({"background": OTHERS}, "node1.gpu1"),
    "background.rate": ({"background": OTHERS}, "390 GB/s"),
    "economics.gpu_hour_usd": ({}, 9.0),
    "economics.kwh_usd": ({}, 9.0),
    "economics.kg_co2_per_kwh": ({}, 9.0),
    "economics.pue": ({}, 2.0),
}

APART = {"parallelism.tp": 2, "parallelism.order": ["dp", "cp", "ep", "pp", "tp"]}  # tensor groups far apart
WIDE = {"cluster.topology": "example-fat-tree", "cluster.nodes": 16, "training.global_batch": 64} | APART
LEAVES = {"network.leaf_nodes": 2, "network.oversubscription": 8.0}  # so that what is above the leaves can fill
PODS = LEAVES | {"network.pod_nodes": 4}
TORUS = {"cluster.topology": "example-torus-2d", "cluster.nodes": 8}
DRAGONFLY = {"cluster.topology": "example-dragonfly", "cluster.nodes": 32, "training.global_batch": 128}
CARDS = {"cluster.topology": "pcie-a100-box", "cluster.nodes": 1, "parallelism.tp": 8}
MESH = {"cluster.topology": "dgx-v100", "cluster.nodes": 1, "parallelism.tp": 8, "training.precision": "fp16"}
FEWER_LINKS = [[0 if i == j else 1 for j in range(8)] for i in range(8)]

# key of a topology file: (what the base has besides, other overrides, value of the key)
TOPOLOGY: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "node.gpu": ({}, {}, "h800"),
    "node.gpus": ({}, {}, 4),
    "node.nics": ({}, {}, 4),
    "node.nic.bandwidth": ({}, {}, "100 Gbps"),
    "node.nic.latency": ({}, {}, "1 ms"),
    "node.scale_up": ({"parallelism.tp": 8}, {}, "pcie"),
    "node.scale_up_bandwidth": ({"parallelism.tp": 8}, {}, "100 GB/s"),
    "node.scale_up_latency": ({"parallelism.tp": 8}, {}, "1 ms"),
    "node.mesh": (MESH, {}, FEWER_LINKS),
    "node.pcie.switches": (CARDS, {}, 8),
    "node.pcie.bandwidth": (CARDS, {}, "10 GB/s"),
    "node.pcie.latency": (CARDS, {}, "1 ms"),
    "node.pcie.p2p": (CARDS, {}, False),
    "node.cpu.sockets": (TO_CPU, {}, 4),
    "node.cpu.memory": (TO_CPU, {}, "4 TB"),
    "node.cpu.memory_bandwidth": (TO_CPU, {}, "10 GB/s"),
    "node.cpu.link_bandwidth": (CARDS, {}, "1 GB/s"),
    "node.nvme.capacity": (TO_DISK, {}, "1 TB"),
    "node.nvme.read_bandwidth": (TO_DISK, {}, "1 GB/s"),
    "node.nvme.write_bandwidth": (TO_DISK, {}, "1 GB/s"),
    "node.power": ({}, {}, "1 MW"),
    "network.kind": (WIDE, {}, "dragonfly"),
    "network.fabric": ({}, {}, "efa"),
    "network.rail_optimised": (WIDE, LEAVES, True),
    "network.rails": (WIDE, LEAVES | {"network.rail_optimised": True}, 1),
    "network.leaf_nodes": (WIDE, LEAVES, 4),
    "network.oversubscription": (WIDE, LEAVES, 16.0),
    "network.pod_nodes": (WIDE, LEAVES | {"network.core_oversubscription": 8.0}, 4),
    "network.core_oversubscription": (WIDE, PODS, 8.0),
    "network.switch_ports": (WIDE, LEAVES | {"network.core_oversubscription": 8.0}, 4),
    "network.latency": ({}, {}, "1 ms"),
    "network.shape": (TORUS, {}, [8, 2]),
    "network.group_leaves": (DRAGONFLY, {}, 2),
    "network.link_bandwidth": (TORUS, {}, "1 GB/s"),
    "network.global_bandwidth": (DRAGONFLY, {}, "1 GB/s"),
    "storage.read_bandwidth": ({"data.storage.kind": "shared"}, {"storage.read_bandwidth": 1e6}, 2e6),
}
DESCRIBED = {  # answers of `llmsim topology` alone
    "description": "another", "sources": ["a book"], "node.nvswitches": 2, "storage.write_bandwidth": "1 GB/s",
}  # fmt: skip

LATENT = {"mla": {"kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64}}
LOW_RANK = {"mla": LATENT["mla"] | {"q_lora_rank": 128}}
SPARSE = LOW_RANK | {"indexer": {"heads": 4, "head_dim": 32, "top_k": 128}}
DELTA = {
    "linear": {"key_heads": 8, "value_heads": 16, "key_head_dim": 128, "value_head_dim": 128},
    "full_attention_every": 2,
}
WINDOW = {"sliding_window": 256}
MOE = EXPERTS["moe"]
SHARED = {"moe": MOE | {"shared_experts": 1}}

# key of an inline model: (what the model has besides DENSE, value of the key)
MODEL: dict[str, tuple[dict[str, Any], Any]] = {
    "layers": ({}, 6),
    "hidden": ({}, 2048),
    "heads": ({}, 32),
    "vocab": ({}, 16384),
    "kv_heads": ({}, 8),
    "head_dim": ({}, 128),
    "ffn_hidden": ({}, 4096),
    "gated_mlp": ({}, False),
    "tied_embeddings": ({}, False),
    "position": ({}, "rope"),
    "max_positions": ({}, 4096),
    "norm": ({}, "rmsnorm"),
    "norms_per_layer": ({}, 4),
    "norm_bias": ({}, False),
    "final_norm": ({}, False),
    "embedding_norm": ({}, True),
    "head_bias": ({}, True),
    "bias": ({}, False),
    "qkv_bias": ({}, False),
    "output_bias": ({}, False),
    "mlp_bias": ({}, False),
    "qk_norm": ({}, True),
    "qk_norm_over": ({"qk_norm": True}, "width"),
    "output_gate": ({}, True),
    "attention_sinks": ({}, True),
    "clamped_glu": (EXPERTS, True),
    "relative_positions": ({}, True),
    "parallel_block": ({}, True),
    "sliding_window": ({}, 256),
    "full_attention_every": (WINDOW, 2),
    "window_chunks": (WINDOW, True),
    "causal": ({}, False),
    "dropout": ({}, False),
    "moe": ({}, MOE),
    "mla": ({}, LATENT["mla"]),
    "linear": ({}, DELTA["linear"]),
    "indexer": (LOW_RANK, SPARSE["indexer"]),
    "mtp_layers": ({}, 1),
    "patch_inputs": ({}, 588),
    "patch_bias": ({"patch_inputs": 588}, False),
    "class_token": ({"patch_inputs": 588}, True),
    "encoder": (SEEING, SEEING["encoder"] | {"layers": 3}),
    "encoder_tokens": (SEEING, 128),
    "encoder_images": (SEEING, 2),
    "projector": (SEEING, {"hidden": [2048]}),
    "moe.experts": (EXPERTS, 32),
    "moe.top_k": (EXPERTS, 4),
    "moe.expert_ffn_hidden": (EXPERTS, 1024),
    "moe.shared_experts": (EXPERTS, 1),
    "moe.shared_ffn_hidden": (SHARED, 1024),
    "moe.shared_gate": (SHARED, True),
    "moe.first_dense": (EXPERTS, 1),
    "moe.every": (EXPERTS, 2),
    "moe.capacity_factor": (EXPERTS, 0.5),
    "moe.router_bias": (EXPERTS, True),
    "moe.groups": ({"moe": MOE | {"groups": 1, "top_k": 4}}, 4),
    "moe.top_groups": ({"moe": MOE | {"groups": 2, "top_k": 4}}, 2),
    "mla.kv_lora_rank": (LATENT, 256),
    "mla.qk_nope_head_dim": (LATENT, 128),
    "mla.qk_rope_head_dim": (LATENT, 64),
    "mla.v_head_dim": (LATENT, 128),
    "mla.q_lora_rank": (LATENT, 256),
    "linear.key_heads": (DELTA, 16),
    "linear.value_heads": (DELTA, 32),
    "linear.key_head_dim": (DELTA, 64),
    "linear.value_head_dim": (DELTA, 64),
    "linear.convolution": (DELTA, 8),
    "indexer.heads": (SPARSE, 8),
    "indexer.head_dim": (SPARSE, 64),
    "indexer.top_k": (SPARSE, 64),
    "projector.hidden": (SEEING, [2048]),
    "projector.merge": (SEEING, 4),
    "projector.bias": (SEEING, True),
}


def leaves() -> set[str]:
    keys = set(known_keys(Scenario))
    return {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}


def answer(changes: dict[str, Any]) -> dict[str, Any]:
    """All that a run says, but for its name and how long the simulation took."""
    metrics = llmsim.simulate(Scenario(**overridden(BASE, changes))).metrics
    simulation = {key: metrics["simulation"][key] for key in ("classes", "detail", "events")}
    return metrics | {"name": "", "simulation": simulation}


def test_every_key_of_a_scenario_has_its_case():
    of_job = {key for key in leaves() if key.startswith("job.")}  # tests/test_job_keys.py
    assert set(SCENARIO) | LABELS | CHECKED == leaves() - of_job
    with pytest.raises(UserError, match=r"parallelism\.dp: 3 does not fit"):
        answer({"parallelism.dp": 3})


@pytest.mark.parametrize("key", sorted(SCENARIO))
def test_every_key_of_a_scenario_changes_an_answer(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faster.yaml").write_text("speeds: {math: 1.1}")
    base, value = SCENARIO[key]
    place = key.replace("faults.", "faults.0.").replace("background.", "background.0.")
    assert answer(base | {place: value}) != answer(base)


def test_every_key_of_a_topology_has_its_case():
    assert set(TOPOLOGY) | set(DESCRIBED) == set(KEYS)


@pytest.mark.parametrize("key", sorted(TOPOLOGY))
def test_every_key_of_a_topology_changes_an_answer(key):
    base, overrides, value = TOPOLOGY[key]
    changed = overrides | {key: value}
    assert answer(base | {"cluster.overrides": changed}) != answer(base | {"cluster.overrides": overrides})


@pytest.mark.parametrize("key", sorted(DESCRIBED))
def test_what_a_topology_only_tells_is_told(key):
    assert describe(load_topology("dgx-h100", {key: DESCRIBED[key]}), 2) != describe(load_topology("dgx-h100"), 2)


def test_a_clamp_without_experts_is_refused():
    with pytest.raises(UserError, match="clamped_glu: true clamps what experts multiply, and the model has none"):
        answer({"model.clamped_glu": True})


def test_every_key_of_a_model_has_its_case():
    parts = {"moe.": Moe, "mla.": Mla, "linear.": LinearAttention, "indexer.": Indexer, "projector.": Projector}
    keys = {f"{prefix}{field.name}" for prefix, part in ({"": Architecture} | parts).items() for field in fields(part)}
    assert set(MODEL) == keys - {"name"}


@pytest.mark.parametrize("key", sorted(MODEL))
def test_every_key_of_a_model_changes_an_answer(key):
    more, value = MODEL[key]
    base = {"model": DENSE | more, "parallelism.tp": 2, "training.fused": False}
    if "moe" in more:
        base |= {"parallelism.ep": 16, "parallelism.dispatch": "deduplicated"}
    assert answer(base | {f"model.{key}": value}) != answer(base)
