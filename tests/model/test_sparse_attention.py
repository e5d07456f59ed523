"""Sparse attention behind an indexer: published totals, FLOPs against closed forms, gradients, memory, bad input."""

from dataclasses import replace

import pytest

from llmsim import simulate
from llmsim.errors import ModelError, UserError
from llmsim.model.activations import layer_activation_bytes
from llmsim.model.flops import flop_ledger
from llmsim.model.huggingface import architecture_from_config
from llmsim.model.layer import Shard, communication_bytes, layer_steps, step_flops
from llmsim.model.mapping import architecture_from_mapping
from llmsim.model.parameters import active_parameters, layer_parameters, parameters
from llmsim.model.published import model
from llmsim.model.work import Attention

V32 = {
    **{"model_type": "deepseek_v32", "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61},
    **{"num_attention_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128},
    **{"qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280, "n_routed_experts": 256, "n_shared_experts": 1},
    **{"num_experts_per_tok": 8, "moe_intermediate_size": 2048, "first_k_dense_replace": 3, "n_group": 8},
    **{"topk_group": 4, "index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048},
}
GLM5 = {
    **{"model_type": "glm_moe_dsa", "hidden_size": 6144, "intermediate_size": 12288, "num_hidden_layers": 78},
    **{"num_attention_heads": 64, "q_lora_rank": 2048, "kv_lora_rank": 512, "qk_nope_head_dim": 192},
    **{"qk_rope_head_dim": 64, "v_head_dim": 256, "vocab_size": 154880, "n_routed_experts": 256, "n_shared_experts": 1},
    **{"num_experts_per_tok": 8, "moe_intermediate_size": 2048, "first_k_dense_replace": 3},
    **{"index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048},
}
ARCH = architecture_from_config(V32, "deepseek-v3.2")
INDEXER = 1536 * 64 * 128 + 7168 * (128 + 64) + 2 * 128


def test_published_totals():
    """DeepSeek-V3's 671B and an indexer in each layer, which is not split by tensor parallelism."""
    assert parameters(ARCH) == 671_026_419_200 + 61 * INDEXER
    assert active_parameters(ARCH) == 37_552_297_472 + 61 * INDEXER
    dense = layer_parameters(model("deepseek-v3").architecture, "moe")
    ours = layer_parameters(ARCH, "moe")
    assert ours.replicated - dense.replicated == INDEXER and ours.attention_sharded == dense.attention_sharded
    glm = architecture_from_config(GLM5, "glm-5")
    assert parameters(glm) == pytest.approx(744e9, rel=0.01)  # 744B with 40B active (arXiv 2602.15763)
    assert active_parameters(glm) == pytest.approx(40e9, rel=0.05)


@pytest.mark.parametrize("s", [1024, 8192])
def test_forward_equals_the_ledger_and_the_closed_form(s):
    steps = layer_steps(ARCH, Shard(1, s), "dense").forward
    ledger = flop_ledger(replace(ARCH, layers=3), s)
    assert 3 * step_flops(steps) == pytest.approx(s * ledger.layers, rel=1e-12)
    keys = min(s, 2048)
    pairs = s * keys - keys**2 / 2  # each query sees 2,048 keys, the first ones those before them
    core = 2 * 128 * (576 + 512) * pairs
    index = 2 * 64 * 128 * s * s / 2
    assert s * ledger.scores == pytest.approx(3 * (core + index), rel=1e-12)
    (attention,) = (step.work for step in steps if isinstance(step.work, Attention))
    assert attention.flops == pytest.approx(core) and attention.kv_heads == 1


def test_products_with_weights_are_those_of_expanded_latent_attention():
    """Absorbing moves the up projections, at the same FLOPs; the indexer comes on top."""
    dense = flop_ledger(model("deepseek-v3").architecture, 4096).projections
    assert flop_ledger(ARCH, 4096).projections - dense == pytest.approx(61 * 2 * (INDEXER - 256))


def test_the_indexer_is_cut_off_from_the_gradient_of_the_model():
    names = [step.name for step in layer_steps(ARCH, Shard(1, 4096), "moe").backward]
    for product in ("index_q", "index_k", "index_weights"):
        assert f"{product}_wgrad" in names and f"{product}_dgrad" not in names
    assert "q_absorb_dgrad" in names and "value_absorb_wgrad" in names
    split = layer_steps(ARCH, Shard(1, 4096), "moe")
    halves = step_flops(split.backward_input) + step_flops(split.backward_weight)
    assert halves == pytest.approx(step_flops(split.backward))


def test_tensor_parallel_ranks_have_the_whole_indexer_and_add_up_its_target():
    s, tp = 4096, 8
    one, part = (layer_steps(ARCH, Shard(1, s, tp=n), "dense") for n in (1, tp))
    indexing = [
        sum(step_flops([step]) for step in steps.forward if step.name.startswith("index_")) for steps in (one, part)
    ]
    assert indexing[0] == indexing[1] > 0
    target = s * (2048 - 2048**2 / (2 * s)) * 4  # fp32, summed over heads
    step = next(step for step in part.backward if step.name == "index_target_sum")
    assert step.work.size == target
    gathered = communication_bytes(layer_steps(ARCH, Shard(1, s, tp=tp, sequence_parallel=True), "dense").forward)
    plain = communication_bytes(
        layer_steps(replace(ARCH, indexer=None), Shard(1, s, tp=tp, sequence_parallel=True), "dense").forward
    )
    # The indexer's inputs whole on each rank; the latent key is gathered either way.
    assert gathered["tp", "all_gather"] - plain["tp", "all_gather"] == s * (7168 + 1536) * 2


def test_what_is_kept():
    s = 4096
    kept = layer_activation_bytes(ARCH, Shard(1, s), "dense")
    assert kept["query"] == s * 128 * 576 * 2 and kept["key"] == s * 576 * 2
    assert kept["chosen_keys"] == s * 2048 * 4 and "value" not in kept and "kv_up_input" not in kept
    assert kept["index_query"] == s * 64 * 128 * 2
    again = layer_activation_bytes(
        ARCH, Shard(1, s, recompute="selective", modules=frozenset({"mla_up_proj"})), "dense"
    )
    assert set(kept) - set(again) == {"q_up_input", "q_absorb_input", "query", "key"}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mla": None}, "indexer: reads low-rank queries of mla, and the model has none"),
        ({"indexer": {"heads": 0, "head_dim": 32, "top_k": 8}}, "indexer.heads: 0 is too small"),
        ({"indexer": {"heads": 4, "head_dim": 32}}, "indexer.top_k is required but not given"),
    ],
)
def test_impossible_shapes(change, message):
    mla = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 4}
    indexer = {"heads": 4, "head_dim": 32, "top_k": 8}
    shape = {"layers": 2, "hidden": 12, "heads": 4, "vocab": 100, "mla": mla, "indexer": indexer, **change}
    with pytest.raises(ModelError) as error:
        architecture_from_mapping(shape, "x")
    assert message in str(error.value)


@pytest.mark.parametrize("field", ["index_n_heads", "index_head_dim", "index_topk"])
def test_a_missing_field_is_named(field):
    with pytest.raises(ModelError, match=f"model_type 'deepseek_v32' needs the field '{field}'"):
        architecture_from_config({key: value for key, value in V32.items() if key != field}, "x")


MODEL = {
    **{"layers": 2, "hidden": 1024, "heads": 8, "vocab": 32000, "gated_mlp": True, "position": "rope"},
    "mla": {"q_lora_rank": 256, "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64},
    "indexer": {"heads": 8, "head_dim": 64, "top_k": 1024},
}


def run(parallelism, **training):
    scenario = {
        **{"name": "sparse", "model": MODEL, "cluster": {"topology": "dgx-h100", "nodes": 1}},
        **{"training": {"seq_len": 4096, "global_batch": 8, **training}, "parallelism": parallelism},
    }
    return simulate(scenario)


@pytest.mark.parametrize(
    "parallelism, training, message",
    [
        ({"cp": 2}, {}, "parallelism.cp: 2 is not modelled for sparse attention"),
        ({}, {"attention": "unfused"}, "training.attention: 'unfused' has no sparse form"),
    ],
)
def test_what_is_not_modelled_is_refused(parallelism, training, message):
    with pytest.raises(UserError, match=message):
        run(parallelism, **training)


@pytest.mark.parametrize("parallelism", [{"tp": 2}, {"tp": 2, "sequence_parallel": True}])
def test_blocks_are_as_kernels(parallelism):
    times = []
    for detail in ("block", "kernel"):
        scenario = {
            **{"name": "sparse", "model": MODEL, "cluster": {"topology": "dgx-h100", "nodes": 1}},
            **{"training": {"seq_len": 4096, "global_batch": 16}, "parallelism": parallelism},
            "simulation": {"detail": detail},
        }
        times.append(simulate(scenario).metrics["iteration_time_s"])
    assert times[0] == pytest.approx(times[1], rel=1e-9)
