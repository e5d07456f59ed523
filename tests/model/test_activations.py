"""Activation memory against Korthikanti et al. 2022 (arXiv 2205.05198, equations 1-5 and figure 7) and by reasoning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.model.activations import (
    embedding_activation_bytes,
    head_activation_bytes,
    head_transient_bytes,
    layer_activation_bytes,
    logits_bytes,
    peak_transient_bytes,
    recompute_buffer_bytes,
)
from llmsim.model.architecture import Architecture
from llmsim.model.shard import ALL_FUSIONS, NO_FUSIONS, Shard
from llmsim.model.sublayers import Mla, Moe

# layers, hidden, heads, micro-batch: Korthikanti et al. 2022, table 3; s = 2048, t = 8, v = 51200
PAPER = {"22B": (48, 6144, 64, 4), "175B": (96, 12288, 96, 1), "530B": (105, 20480, 128, 1), "1T": (128, 25600, 160, 1)}


def gpt(size):
    layers, hidden, heads, _ = PAPER[size]
    return Architecture(size, layers, hidden, heads, 51200)


def paper_shard(size, **options):
    return Shard(PAPER[size][3], 2048, tp=8, precision="fp16", attention="unfused", dropout=True, **options)


def layer_bytes(arch, shard, kind="dense"):
    return sum(layer_activation_bytes(arch, shard, kind).values())


@pytest.mark.parametrize("size", PAPER)
def test_equals_the_papers_equations(size):
    arch = gpt(size)
    s, b, h, a, t = 2048, PAPER[size][3], arch.hidden, arch.heads, 8
    sbh = s * b * h
    expected = {
        (False, "none"): sbh * (10 + 24 / t + 5 * a * s / (h * t)),
        (True, "none"): sbh / t * (34 + 5 * a * s / h),
        (False, "selective"): sbh * (10 + 24 / t),
        (True, "selective"): 34 * sbh / t,
        (False, "full"): 2 * sbh,
        (True, "full"): 2 * sbh / t,
    }
    for (parallel, recompute), size_bytes in expected.items():
        shard = paper_shard(size, sequence_parallel=parallel, recompute=recompute)
        assert layer_bytes(arch, shard) == pytest.approx(size_bytes, rel=1e-12), (parallel, recompute)


@pytest.mark.parametrize(
    "size, published",
    [
        ("22B", (66.8, 49.4, 16.2, 7.6)),
        ("175B", (62.0, 56.5, 18.5, 8.7)),
        ("530B", (58.3, 62.0, 20.3, 9.4)),
        ("1T", (58.3, 62.0, 20.3, 9.4)),
    ],
)
def test_figure_7_percentages(size, published):
    arch, modes = gpt(size), ((True, "none"), (False, "selective"), (True, "selective"), (False, "full"))
    baseline = layer_bytes(arch, paper_shard(size))
    for (parallel, recompute), percent in zip(modes, published):
        shard = paper_shard(size, sequence_parallel=parallel, recompute=recompute)
        assert 100 * layer_bytes(arch, shard) / baseline == pytest.approx(percent, abs=0.15)  # read off the bars


def test_head_and_embedding_equal_section_4_3():
    arch = gpt("175B")
    shard = paper_shard("175B", sequence_parallel=True, fusions=ALL_FUSIONS - {"cross_entropy"})
    sbh, t = 2048 * 12288, 8
    assert sum(head_activation_bytes(arch, shard).values()) == pytest.approx(4 * sbh / t * (1 + 51200 / 12288))
    assert embedding_activation_bytes(arch, shard)["dropout_mask"] == sbh / t
    fused = paper_shard("175B", sequence_parallel=True)
    assert logits_bytes(arch, fused) == logits_bytes(arch, shard) / 2
    assert head_transient_bytes(arch, fused) < head_transient_bytes(arch, shard)


def test_flash_attention_keeps_no_squares():
    arch = gpt("175B")
    short, long = (layer_bytes(arch, Shard(1, s, tp=8, sequence_parallel=True)) for s in (2048, 65536))
    assert long == pytest.approx(32 * short)
    saved = layer_activation_bytes(arch, Shard(1, 2048, tp=8, sequence_parallel=True))
    assert saved["logsumexp"] == 2048 * 96 / 8 * 4
    assert "softmax_output" not in saved
    # No dropout and flash: 34 − 2 bytes of masks, plus the logsumexp.
    assert sum(saved.values()) - saved["logsumexp"] == 32 * 2048 * 12288 / 8


def test_llama_layer_by_hand():
    arch = Architecture("l", 80, 8192, 64, 128256, kv_heads=8, ffn_hidden=28672, gated_mlp=True, bias=False,
                        position="rope", norm="rmsnorm")  # fmt: skip
    h, f, kv = 8192, 28672, 1024
    per_token = 2 * (4 * h + 2 * h + 2 * kv + 3 * f) + 4 * 64
    assert layer_bytes(arch, Shard(1, 4096)) == 4096 * per_token
    eager = layer_activation_bytes(arch, Shard(1, 4096, fusions=ALL_FUSIONS - {"swiglu"}))
    assert eager["activation_input"] == 4096 * 3 * f * 2


def test_selective_changes_nothing_for_flash():
    arch = gpt("22B")
    assert layer_bytes(arch, Shard(1, 2048, recompute="selective")) == layer_bytes(arch, Shard(1, 2048))
    assert recompute_buffer_bytes(arch, Shard(1, 2048, recompute="selective")) == 0


TOKENS, H = 4096, 7168
V3 = Architecture("v3", 4, H, 128, 129280, ffn_hidden=18432, gated_mlp=True, norm="rmsnorm", bias=False,
                  moe=Moe(256, 8, 2048, shared_experts=1), mla=Mla(512, 128, 64, 128, q_lora_rank=1536))  # fmt: skip


@pytest.mark.parametrize(
    "module, kind, per_token",
    [
        ("layernorm", "dense", 2 * 2 * H),  # what the down projections read, what the MLP reads
        ("layernorm", "moe", 2 * 2 * H),  # the router's input is the shared expert's too
        ("mla_up_proj", "moe", 2 * (1536 + 512 + 128 * (192 + 192 + 128))),
        ("mlp", "dense", 2 * 3 * 18432),
        ("mlp", "moe", 0),
        ("moe_act", "moe", 2 * 8 * 2048),
        ("shared_experts", "moe", 2 * 3 * 2048),
        ("moe", "moe", 2 * (3 * 2048 + 8 * (2 * H + 3 * 2048)) + 2 * 4 * 256 + 8 * 8),
        ("core_attn", "dense", 0),
    ],
)
def test_bytes_that_a_module_saves(module, kind, per_token):
    """Experts over 256 ranks: each computes 8 copies a token. `moe` counts the outputs that are weighted, too."""
    plain = Shard(1, TOKENS, ep=256)
    remade = Shard(1, TOKENS, ep=256, recompute="selective", modules=frozenset({module}))
    saved = layer_bytes(V3, plain, kind) - layer_bytes(V3, remade, kind)
    assert saved == TOKENS * per_token == recompute_buffer_bytes(V3, remade, kind)


def test_activations_kept_in_narrower_formats():
    narrow = dict(precision="fp8", activation_input="fp8", attention_output="e5m6")
    plain = layer_activation_bytes(V3, Shard(1, TOKENS, precision="fp8"))
    kept = layer_activation_bytes(V3, Shard(1, TOKENS, **narrow))
    assert kept["activation_input"] == plain["activation_input"] / 2 == TOKENS * 2 * 18432
    # One copy for the core's backward and the projection's weight gradient, not a 16-bit and an fp8 one.
    assert plain["attention_output"] + plain["proj_input"] == 3 * TOKENS * 128 * 128
    assert kept["proj_input"] == 1.5 * TOKENS * 128 * 128 and "attention_output" not in kept


@given(
    tp=st.sampled_from([1, 2, 4, 8]),
    cp=st.sampled_from([1, 2, 4]),
    parallel=st.booleans(),
    attention=st.sampled_from(["flash", "unfused"]),
    recompute=st.sampled_from(["none", "selective", "full"]),
    fusions=st.sampled_from([ALL_FUSIONS, NO_FUSIONS]),
    precision=st.sampled_from(["bf16", "fp8", "fp32"]),
    kind=st.sampled_from(["dense", "moe"]),
    mla=st.booleans(),
)
def test_kept_plus_recomputed_is_everything(tp, cp, parallel, attention, recompute, fusions, precision, kind, mla):
    arch = Architecture("m", 4, 1024, 16, 32000, moe=Moe(8, 2, 512, shared_experts=1), gated_mlp=True,
                        mla=Mla(64, 32, 16, 32, 96) if mla else None)  # fmt: skip
    options = dict(tp=tp, cp=cp, cp_kind="all_gather", sequence_parallel=parallel, attention=attention,
                   fusions=fusions, precision=precision, dropout=True)  # fmt: skip
    shard = Shard(2, 512, recompute=recompute, **options)
    kept, everything = layer_bytes(arch, shard, kind), layer_bytes(arch, Shard(2, 512, **options), kind)
    assert 0 < kept <= everything
    assert kept + recompute_buffer_bytes(arch, shard, kind) == pytest.approx(everything)
    assert peak_transient_bytes(arch, shard, kind) > 0
    if tp == 1 and cp == 1:
        split = Shard(2, 512, recompute=recompute, **{**options, "tp": 2, "sequence_parallel": True})
        ratio = layer_bytes(arch, split, kind) / kept
        assert ratio == pytest.approx(0.5, rel=0.02)


def test_moe_and_fp8_inputs():
    arch = Architecture("mix", 32, 4096, 32, 32000, kv_heads=8, ffn_hidden=14336, gated_mlp=True, bias=False,
                        position="rope", norm="rmsnorm", moe=Moe(8, 2, 14336))  # fmt: skip
    saved = layer_activation_bytes(arch, Shard(1, 4096, ep=8), "moe")
    assert saved["experts_fc1_input"] == 4096 * 2 * 4096 * 2
    assert saved["experts_activation_input"] == 2 * 4096 * 2 * 14336 * 2
    half = layer_activation_bytes(arch, Shard(1, 4096, ep=8, precision="fp8"), "moe")
    assert half["experts_fc2_input"] == saved["experts_fc2_input"] / 2
    assert half["query"] == saved["query"]
