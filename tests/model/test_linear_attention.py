"""Layers of linear attention: published totals, FLOPs against closed forms, tensor parallelism, memory, bad input."""

from dataclasses import replace

import pytest

from llmsim import simulate
from llmsim.errors import ModelError, UserError
from llmsim.memory.footprint import layer_part
from llmsim.model.activations import layer_activation_bytes
from llmsim.model.flops import flop_ledger, six_n_flops_per_token
from llmsim.model.huggingface import architecture_from_config
from llmsim.model.layer import Shard, communication_bytes, layer_steps, step_flops
from llmsim.model.mapping import architecture_from_mapping
from llmsim.model.parameters import active_parameters, layer_parameters, parameter_ledger, parameters
from llmsim.program.stages.shares import Shares

NEXT = {
    **{"model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 16},
    **{"num_key_value_heads": 2, "head_dim": 256, "vocab_size": 151936, "intermediate_size": 5120},
    **{"linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128},
    **{"linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "num_experts": 512, "num_experts_per_tok": 10},
    **{"moe_intermediate_size": 512, "shared_expert_intermediate_size": 512},
}
ARCH = architecture_from_config(NEXT, "qwen3-next")


def test_published_totals():
    """80B with 3B active (the model card); to the unit what the shapes of the released weights without MTP give."""
    assert parameters(ARCH) == 79_674_391_296
    assert active_parameters(ARCH) == pytest.approx(3.9e9, rel=0.03)
    linear = layer_parameters(ARCH, "linear_moe")
    # in_proj_qkvz, in_proj_ba, conv1d, A_log and dt_bias, out_proj
    assert linear.attention_sharded == 2048 * 12288 + 2048 * 64 + 8192 * 4 + 2 * 32 + 4096 * 2048
    assert parameter_ledger(ARCH)["linear attention"] == 36 * (linear.attention_sharded + 128)
    full = layer_parameters(ARCH, "moe").attention_sharded
    assert full == 2048 * 2 * 16 * 256 + 2 * 2048 * 2 * 256 + 16 * 256 * 2048  # q has its gate beside it


def test_every_fourth_layer_is_full():
    assert ARCH.layer_kinds()[:5] == ("linear_moe", "linear_moe", "linear_moe", "moe", "linear_moe")
    listed = {**NEXT, "layer_types": ["linear_attention", "full_attention"] * 24}
    assert architecture_from_config(listed, "x").layer_kinds()[:2] == ("linear_moe", "moe")
    dense = {key: value for key, value in NEXT.items() if "expert" not in key} | {"model_type": "qwen3_5_text"}
    assert set(architecture_from_config(dense, "x").layer_kinds()) == {"linear_dense", "dense"}


@pytest.mark.parametrize("tp", [1, 2])
def test_forward_equals_the_ledger_and_the_closed_form(tp):
    s = 4096
    shard = Shard(1, s, tp=tp, sequence_parallel=tp > 1)
    router = 2.0 * s * 2048 * 512
    total = sum(tp * step_flops(layer_steps(ARCH, shard, kind).forward) - router for kind in ARCH.layer_kinds())
    assert total == pytest.approx(s * flop_ledger(ARCH, s).layers, rel=1e-12)
    # A head and chunk of 64: keys by keys, w, u, q by keys, scores by values; the state read twice, written once.
    c, k, v = 64, 128, 128
    one_chunk = 2 * (c * c * k + c * c * k + c * c * v + c * c * k + c * c * v) + 3 * 2 * c * k * v
    ledger, full = flop_ledger(ARCH, s), 12 * 2 * 16 * 2 * 256 * s / 2
    assert ledger.scores - full == pytest.approx(36 * 32 * one_chunk / c)


def test_the_state_costs_the_same_at_any_length():
    short, long = (flop_ledger(replace(ARCH, full_attention_every=0), s).scores for s in (2048, 65536))
    assert short == long
    saved = [layer_activation_bytes(ARCH, Shard(1, s), "linear_moe") for s in (2048, 4096)]
    assert {name: 2 * size for name, size in saved[0].items()} == pytest.approx(saved[1], rel=0.02)


def test_backward_has_twice_the_forward_and_what_is_made_again():
    """w, u and the states are made again: 2·C·(k + v) + 4·k·v a token and head; all else is twice the forward."""
    s, kind = 2048, "linear_moe"
    steps = layer_steps(ARCH, Shard(1, s), kind)
    again = 32 * s * (2 * 64 * (128 + 128) + 4 * 128 * 128)
    assert step_flops(steps.backward) == pytest.approx(2 * step_flops(steps.forward) + again, rel=1e-12)
    halves = step_flops(steps.backward_input) + step_flops(steps.backward_weight)
    assert halves == pytest.approx(step_flops(steps.backward))


def test_tensor_parallelism_splits_heads():
    one, four = (Shard(1, 2048, tp=tp) for tp in (1, 4))
    whole = 2048 * 2048 * 2
    dense = replace(ARCH, moe=None, ffn_hidden=5120)
    assert communication_bytes(layer_steps(dense, four, "linear_dense").forward) == {("tp", "all_reduce"): 2 * whole}
    kept, split = (layer_activation_bytes(ARCH, shard, "linear_moe") for shard in (one, four))
    for name in ("convolution_before", "convolution_after", "query_and_key", "inverse", "output_and_gate"):
        assert split[name] == kept[name] / 4
    # q, k, v before and after the convolution, q and k a value head, output and gate (2 bytes), the inverse of chunks.
    rows = 2048 * 2
    assert kept["convolution_before"] == rows * 8192 and kept["query_and_key"] == rows * 2 * 4096
    assert kept["inverse"] == rows * 32 * 64 and kept["output_and_gate"] == rows * 2 * 4096


def test_memory_of_a_split_backward_counts_its_own_projections():
    """Gradients of the outputs wait too: input projection 12352, output 2048, beside those of the experts."""
    shard, nothing = Shard(1, 2048), Shares(0.0, 0.0)
    dense = replace(ARCH, moe=None, ffn_hidden=4096, full_attention_every=0, norms_per_layer=2)
    part = layer_part(dense, shard, "linear_dense", nothing)
    inputs = 2 * 2048 + 4096 + 4096  # of both input projections, of the output projection, of the MLP's second
    outputs = 12352 + 2048 + 2 * 4096 + 2048
    assert part.waiting == 2048 * 2 * (inputs + outputs)


def test_six_n_counts_scores_of_full_layers_only():
    linear = replace(ARCH, full_attention_every=0)
    n = 6.0 * active_parameters(linear, 4096)
    assert six_n_flops_per_token(linear, 4096) == n
    assert six_n_flops_per_token(ARCH, 4096) == 6.0 * active_parameters(ARCH, 4096) + 12.0 * 12 * 16 * 256 * 4096


@pytest.mark.parametrize(
    "change, message",
    [
        ({"linear": {"key_heads": 3, "value_heads": 8, "key_head_dim": 4, "value_head_dim": 4}}, "linear.key_heads: 3"),
        ({"linear": {"key_heads": 2}}, "linear.value_heads, linear.key_head_dim, linear.value_head_dim are required"),
        ({"parallel_block": True}, "linear: layers of linear attention do not go with parallel_block"),
        ({"sliding_window": 8}, "linear: layers of linear attention do not go with sliding_window"),
    ],
)
def test_impossible_shapes(change, message):
    net = {"key_heads": 2, "value_heads": 4, "key_head_dim": 4, "value_head_dim": 4}
    shape = {"layers": 2, "hidden": 12, "heads": 4, "vocab": 100, "linear": net, **change}
    with pytest.raises(ModelError) as error:
        architecture_from_mapping(shape, "x")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layer_types": ["linear_attention"] * 3 + ["sliding_attention"]}, "has layers of kind sliding_attention"),
        ({"layer_types": ["full_attention", "full_attention", "linear_attention"]}, "layer_types = "),
        ({"linear_conv_kernel_dim": None}, "needs the field 'linear_conv_kernel_dim'"),
    ],
)
def test_mistakes_in_a_file(change, message):
    with pytest.raises(ModelError) as error:
        architecture_from_config({**NEXT, **change}, "x", "here/config.json")
    assert str(error.value).startswith("here/config.json: ") and message in str(error.value)


MODEL = {
    **{"layers": 4, "hidden": 1024, "heads": 8, "vocab": 32000, "full_attention_every": 4},
    "linear": {"key_heads": 4, "value_heads": 8, "key_head_dim": 128, "value_head_dim": 128},
}


def run(**changes):
    scenario = {
        **{"name": "linear", "model": MODEL, "cluster": {"topology": "dgx-h100", "nodes": 1}},
        **{"training": {"seq_len": 4096, "global_batch": 8}, "parallelism": changes},
    }
    return simulate(scenario)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cp": 2}, "parallelism.cp: 2 is not modelled for linear attention"),
        ({"tp": 8}, "parallelism.tp: 8 does not divide the 4 key heads of linear attention"),
    ],
)
def test_what_is_not_modelled_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        run(**changes)


def test_a_longer_sequence_costs_linear_layers_nothing():
    """The same tokens in half as many sequences of twice the length: equal for linear attention, more for full."""

    def seconds(model, length):
        scenario = {
            **{"name": "linear", "model": model, "cluster": {"topology": "dgx-h100", "nodes": 1}},
            "training": {"seq_len": length, "global_batch": 8 * 65536 // length, "micro_batch": 65536 // length},
        }
        return simulate(scenario).metrics["iteration_time_s"]

    linear = MODEL | {"full_attention_every": 0, "position": "none"}
    full = {key: value for key, value in linear.items() if key not in ("linear", "full_attention_every")}
    assert seconds(linear, 65536) == pytest.approx(seconds(linear, 8192), rel=0.01)
    assert seconds(full, 65536) > 1.5 * seconds(full, 8192)
