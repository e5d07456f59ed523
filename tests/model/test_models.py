"""Shapes, parameters and FLOPs against published totals, closed forms and published TFLOP/s."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.catalogue.datasets import dataset, datasets
from llmsim.errors import CatalogueError, ModelError
from llmsim.model.architecture import Architecture
from llmsim.model.flops import (
    attention_pairs,
    flop_ledger,
    hardware_flops_per_token,
    model_flops_per_token,
    six_n_flops_per_token,
)
from llmsim.model.mapping import architecture_from_mapping
from llmsim.model.parameters import (
    active_parameters,
    embedding_parameters,
    head_parameters,
    layer_parameters,
    mtp_parameters,
    parameter_ledger,
    parameters,
)
from llmsim.model.published import model, models
from llmsim.model.sublayers import Mla, Moe

# Totals of the public weights, to the unit; active where the authors count it (embeddings included).
GOLDEN = {
    "gpt2": (124_439_808, None),
    "gpt2-xl": (1_557_611_200, None),
    "gpt-neox-20b": (20_554_567_680, None),
    "llama2-7b": (6_738_415_616, None),
    "llama3-8b": (8_030_261_248, None),
    "llama3-70b": (70_553_706_496, None),
    "llama3-405b": (405_853_388_800, None),
    "mistral-7b": (7_241_732_096, None),
    "mixtral-8x7b": (46_702_792_704, 12_879_925_248),
    "qwen2-7b": (7_615_616_512, None),
    "qwen3-8b": (8_190_735_360, None),
    "qwen3-30b-a3b": (30_532_122_624, 3_353_032_704),
    "gemma2-2b": (2_614_341_888, None),
    "deepseek-v3": (671_026_419_200, 37_552_297_472),
}

SMALL = {"layers": 2, "hidden": 12, "heads": 4, "vocab": 100}


@pytest.mark.parametrize("name", GOLDEN)
def test_published_totals_to_the_unit(name):
    total, active = GOLDEN[name]
    arch = model(name).architecture
    assert parameters(arch) == total
    assert active_parameters(arch) == (active or total)


def test_every_entry_agrees_with_what_its_source_publishes():
    for name in models():
        entry = model(name)
        published = entry.published_parameters
        if published is None:
            continue
        # MPT has as many learned positions as its sequence; the benchmark's counts are at 2048.
        counted = parameters(entry.architecture, 2048 if entry.family == "MPT" else None)
        if published % 100_000:  # printed to the unit, not rounded
            assert counted == published, name
        else:
            assert counted == pytest.approx(published, rel=0.03), name


def test_catalogue_marks_the_growth_of_the_field():
    tokens = {name: model(name).training_tokens for name in ("gpt3-175b", "palm-540b", "chinchilla-70b", "llama3-405b")}
    assert tokens == {
        "gpt3-175b": 300e9,
        "palm-540b": 780e9,
        "chinchilla-70b": 1.4e12,
        "llama3-405b": 15.6e12,
    }
    for name in ("gpt1", "gpt2-xl", "gopher-280b", "mt-nlg-530b"):
        assert name in models()
    assert model("gpt2").dataset_bytes == 40e9
    assert model("llama-65b").dataset_bytes == 4.7e12


def test_aliases_and_case():
    assert model("GPT3-1T").name == "megatron-1t"
    assert model("llama3.1-405b") == model("llama3-405b")
    assert model("gpt3_175b").architecture.vocab == 51200


@pytest.mark.parametrize(
    "wrong, right", [("lama3-8b", "llama3-8b"), ("gpt3-175", "gpt3-175b"), ("mixtral-8x7", "mixtral-8x7b")]
)
def test_unknown_model_suggests_the_nearest(wrong, right):
    with pytest.raises(CatalogueError, match=f"no model named '{wrong}' .*did you mean '{right}'"):
        model(wrong)


def test_names_are_unique_over_all_families():
    assert len(set(models())) == len(models()) > 90


def test_datasets_have_sources_and_sizes():
    for name in datasets():
        assert dataset(name).source and (dataset(name).bytes or dataset(name).tokens)
    assert dataset("pile").bytes == 825.18 * 2**30
    assert 3 < dataset("llama1-mix").bytes_per_token < 4
    with pytest.raises(CatalogueError, match="did you mean 'pile'"):
        dataset("piles")


@pytest.mark.parametrize("name", ["megatron-1.7b", "gpt3-175b", "megatron-530b", "megatron-1t"])
def test_megatron_formula(name):
    arch = model(name).architecture
    layers, h, vocab, seq = arch.layers, arch.hidden, arch.vocab, 2048
    formula = 12 * layers * h**2 * (1 + 13 / (12 * h) + (vocab + seq) / (12 * layers * h))
    assert parameters(arch, seq) == round(formula) + 2 * h  # the final norm, which the paper drops


def test_ledger_rows_are_the_parts():
    arch = model("deepseek-v3").architecture
    ledger = parameter_ledger(arch)
    kinds = arch.layer_kinds()
    assert kinds[:4] == ("dense", "dense", "dense", "moe") and len(kinds) == 61
    parts = sum(layer_parameters(arch, kind).total for kind in kinds)
    assert embedding_parameters(arch).total + parts + head_parameters(arch).total == ledger.total
    assert ledger["experts"] == 58 * 256 * 3 * 7168 * 2048
    assert ledger["router"] == 58 * (7168 + 1) * 256
    with_mtp = model("deepseek-v3-mtp").architecture
    extra = layer_parameters(arch, "moe").total + mtp_parameters(arch).total
    assert parameters(with_mtp) == ledger.total + extra


def test_what_tensor_and_expert_parallelism_shard():
    dense = layer_parameters(model("llama3-8b").architecture, "dense")
    assert dense.attention_sharded == 2 * 4096 * 4096 + 2 * 4096 * 1024
    assert dense.kv_sharded == 2 * 4096 * 1024
    assert dense.mlp_sharded == 3 * 4096 * 14336
    assert dense.replicated == 2 * 4096
    own, experts = dense.on_rank(tp=4, kv_heads=8)
    assert (own, experts) == ((dense.total - 8192) / 4 + 8192, 0)
    # Twice as many ranks as kv heads: each kv head is held twice.
    crowded, _ = dense.on_rank(tp=16, kv_heads=8)
    q_output_mlp = dense.attention_sharded - dense.kv_sharded + dense.mlp_sharded
    assert crowded == q_output_mlp / 16 + dense.kv_sharded / 8 + 8192
    moe = layer_parameters(model("mixtral-8x7b").architecture, "moe")
    assert moe.on_rank(tp=1, ep=8)[1] == moe.one_expert == 3 * 4096 * 14336
    gpt = layer_parameters(model("gpt3-175b").architecture, "dense")
    h = 12288
    assert gpt.attention_sharded == 4 * h * h + 3 * h
    assert gpt.mlp_sharded == 8 * h * h + 4 * h
    assert gpt.replicated == 4 * h + 2 * h  # two norms, the biases of both row-parallel products


def test_head_and_embedding():
    gpt = model("gpt3-175b").architecture
    assert head_parameters(gpt).sharded == 0
    assert head_parameters(gpt, copy_tied=True).sharded == embedding_parameters(gpt).sharded == 51200 * 12288
    mpt = model("mpt-7b").architecture
    assert embedding_parameters(mpt, 65536).replicated == 65536 * 4096
    assert embedding_parameters(gpt, 4096).replicated == 4096 * 12288, "a longer sequence needs a longer table"
    assert head_parameters(model("llama3-8b").architecture).sharded == 128256 * 4096


def test_gpt_oss_active_parameters_leave_the_embedding_out():
    arch = model("gpt-oss-120b").architecture
    assert active_parameters(arch) - arch.vocab * arch.hidden == pytest.approx(5.13e9, rel=1e-3)


def test_layer_kinds_and_windows():
    assert model("llama4-maverick").architecture.layer_kinds()[:4] == ("dense", "moe", "dense", "moe")
    gemma = model("gemma2-2b").architecture
    assert gemma.layer_windows()[:3] == (4096, 0, 4096)
    assert set(model("mistral-7b").architecture.layer_windows()) == {4096}
    assert set(model("llama3-8b").architecture.layer_windows()) == {0}


def test_vision_encoder_in_front():
    text = {"layers": 4, "hidden": 256, "heads": 4, "vocab": 1000, "max_positions": 128}
    vision = {
        "layers": 3,
        "hidden": 128,
        "heads": 4,
        "patch_inputs": 588,
        "max_positions": 64,
        "causal": False,
    }
    plain = architecture_from_mapping(text, "plain")
    both = architecture_from_mapping({**text, "encoder": vision, "encoder_tokens": 64}, "both")
    assert parameters(both) == parameters(plain) + parameters(both.encoder) + 128 * 256
    assert flop_ledger(both, 128).encoder > 0
    assert model_flops_per_token(both, 128) - model_flops_per_token(plain, 128) == pytest.approx(
        3 * flop_ledger(both, 128).encoder
    )


def test_contract_inline_model():
    arch = architecture_from_mapping(
        {
            "layers": 96,
            "hidden": 12288,
            "heads": 96,
            "kv_heads": 96,
            "head_dim": 128,
            "ffn_hidden": 49152,
            "gated_mlp": False,
            "vocab": 51200,
            "tied_embeddings": True,
            "position": "learned",
            "norm": "layernorm",
            "bias": True,
            "moe": None,
            "mla": None,
        },
        "inline",
    )
    assert parameters(arch, 2048) == parameters(model("gpt3-175b").architecture)
    both = architecture_from_mapping(
        {
            **SMALL,
            "moe": {
                "experts": 8,
                "top_k": 2,
                "expert_ffn_hidden": 14336,
                "shared_experts": 0,
                "first_dense": 0,
                "every": 1,
                "capacity_factor": None,
            },
            "mla": {
                "q_lora_rank": 1536,
                "kv_lora_rank": 512,
                "qk_nope_head_dim": 128,
                "qk_rope_head_dim": 64,
                "v_head_dim": 128,
            },
        },
        "inline",
    )
    assert both.moe == Moe(8, 2, 14336) and both.mla == Mla(512, 128, 64, 128, 1536)
    assert both.qk_head_dim == 192 and both.v_head_dim == 128 and both.core_kv_heads == both.heads


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layrs": 3}, "layrs: no such key; did you mean 'layers'"),
        ({"zzz": 3}, "zzz: no such key; expected one of layers, hidden"),
        ({"heads": 5}, "heads: 5 does not divide hidden 12"),
        ({"kv_heads": 3}, "kv_heads: 3 does not divide heads 4"),
        ({"layers": 0}, "layers: 0 is too small"),
        ({"layers": "two"}, "layers: 'two' is not a whole number"),
        ({"layers": 2.5}, "layers: 2.5 is not a whole number"),
        ({"hidden": True}, "hidden: True is not a whole number"),
        ({"kv_heads": 0}, "kv_heads: 0 is too small"),
        ({"vocab": -1}, "vocab: -1 is too small"),
        ({"gated_mlp": "yes"}, "gated_mlp: 'yes' is not true or false"),
        (
            {"position": "rotary"},
            "position: 'rotary' is not known; expected one of learned, rope, alibi, none",
        ),
        ({"norm": 1}, "norm: 1 is not a name"),
        ({"moe": 8}, "moe: 8 is not a mapping"),
        ({"moe": {"experts": 8, "topk": 2}}, "moe.topk: no such key; did you mean 'top_k'"),
        ({"moe": {"experts": 8}}, "moe.top_k, moe.expert_ffn_hidden are required"),
        (
            {"moe": {"experts": 2, "top_k": 3, "expert_ffn_hidden": 4}},
            "moe.top_k: 3 is more than the 2 experts",
        ),
        (
            {"moe": {"experts": 2, "top_k": 1, "expert_ffn_hidden": 4, "first_dense": 9}},
            "first_dense: 9 is more than",
        ),
        (
            {"moe": {"experts": 2, "top_k": 1, "expert_ffn_hidden": 4, "capacity_factor": 0}},
            "capacity_factor: 0 is out of range",
        ),
        (
            {"mla": {"kv_lora_rank": 0, "qk_nope_head_dim": 1, "qk_rope_head_dim": 1, "v_head_dim": 1}},
            "mla.kv_lora_rank",
        ),
        ({"encoder": {"layers": 1, "hidden": 8}}, "encoder.heads is required"),
    ],
)
def test_bad_shapes_are_one_sentence(change, message):
    with pytest.raises(ModelError) as error:
        architecture_from_mapping({**SMALL, **change}, "mine")
    text = str(error.value)
    assert text.startswith("model 'mine': ") and message in text and "\n" not in text


def test_missing_fields_are_named():
    with pytest.raises(ModelError, match="hidden, heads, vocab are required"):
        architecture_from_mapping({"layers": 2}, "mine")
    with pytest.raises(ModelError, match="not a mapping"):
        architecture_from_mapping([1], "mine")


def test_architecture_is_hashable_and_replaceable():
    arch = model("mixtral-8x7b").architecture
    assert hash(arch) == hash(dataclasses.replace(arch))
    assert parameters(dataclasses.replace(arch, layers=1)) < parameters(arch)


# FLOPs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["megatron-1.7b", "megatron-22b", "gpt3-175b", "megatron-1t"])
def test_gpt_closed_forms(name):
    arch, seq = model(name).architecture, 2048
    layers, h, vocab = arch.layers, arch.hidden, arch.vocab
    edge = vocab / (12 * layers * h)
    per_layer = 72 * layers * h**2
    close = {"rel": 1e-12}
    noncausal = per_layer * (1 + seq / (6 * h) + edge)
    assert model_flops_per_token(arch, seq, causal=False) == pytest.approx(noncausal, **close)
    halved = per_layer * (1 + seq / (12 * h) + edge)
    assert model_flops_per_token(arch, seq, causal=True) == pytest.approx(halved, **close)
    full = 96 * layers * h**2 * (1 + seq / (6 * h) + vocab / (16 * layers * h))
    assert hardware_flops_per_token(arch, seq, "full", causal=False) == pytest.approx(full, **close)
    selective = per_layer * (1 + seq / (4.5 * h) + edge)
    assert hardware_flops_per_token(arch, seq, "selective", causal=False) == pytest.approx(selective, **close)


# (model, sequence, batch, GPUs, seconds, TFLOP/s a GPU, definition); time and TFLOP/s (or MFU) are both published.
PUBLISHED = [
    # MT-NLG 530B on 2,240 A100 (Smith et al. 2022) and BLOOM-176B on 384 A100 (BigScience chronicles): all recomputed.
    ("mt-nlg-530b", 2048, 1920, 2240, 60.1, 126.0, ("full", False)),
    ("bloom-176b", 2048, 2048, 384, 105.22, 149.0, ("full", False)),
    # Korthikanti et al. 2022, table 5, and the published MFU of 41.5, 51.4, 56.0, 56.3% of 312 TFLOP/s.
    ("megatron-22b", 2048, 4, 8, 1.10, 0.415 * 312, ("none", False)),
    ("gpt3-175b", 2048, 64, 64, 13.75, 0.514 * 312, ("none", False)),
    ("megatron-530b", 2048, 280, 280, 37.83, 0.560 * 312, ("none", False)),
    ("megatron-1t", 2048, 512, 512, 71.49, 0.563 * 312, ("none", False)),
]


@pytest.mark.parametrize("name, seq, batch, gpus, seconds, tflops, definition", PUBLISHED)
def test_published_tflops_times_seconds(name, seq, batch, gpus, seconds, tflops, definition):
    recompute, causal = definition
    counted = hardware_flops_per_token(model(name).architecture, seq, recompute, causal) * seq * batch
    assert counted == pytest.approx(tflops * 1e12 * gpus * seconds, rel=0.006)


def test_six_n_and_parts():
    arch, seq = model("llama3-8b").architecture, 8192
    exact = model_flops_per_token(arch, seq, causal=False)
    # 6N counts norms and the input embedding as products; nothing else separates the two.
    not_products = 6 * (parameter_ledger(arch)["norms"] + 4096)
    assert six_n_flops_per_token(arch, seq, embedding=False) == pytest.approx(exact + not_products, rel=1e-12)
    assert six_n_flops_per_token(arch, seq) - six_n_flops_per_token(arch, seq, embedding=False) == 6 * 128256 * 4096
    tied = model("gpt2").architecture
    assert six_n_flops_per_token(tied, 1024) - six_n_flops_per_token(tied, 1024, embedding=False) == 6 * 1024 * 768


def test_deepseek_v3_training_flops():
    # About 250 GFLOP a token at 4k (causal): 2.79M H800 hours for 14.8e12 tokens are then some 37% of 989 TFLOP/s.
    arch = model("deepseek-v3-mtp").architecture
    assert model_flops_per_token(arch, 4096) == pytest.approx(250e9, rel=0.05)


def test_moe_counts_the_experts_a_token_visits():
    ledger = flop_ledger(model("mixtral-8x7b").architecture, 4096)
    assert ledger.mlp == ledger.shared_experts == 0
    assert ledger.experts == 32 * 2 * 2 * 3 * 4096 * 14336
    maverick = flop_ledger(model("llama4-maverick").architecture, 4096)
    assert maverick.mlp == 24 * 6 * 5120 * 16384
    assert maverick.experts == maverick.shared_experts == 24 * 6 * 5120 * 8192


@given(seq=st.integers(1, 1 << 20), window=st.integers(0, 1 << 20))
def test_windows_only_take_pairs_away(seq, window):
    for causal in (True, False):
        pairs = attention_pairs(seq, window, causal)
        assert 0 < pairs <= attention_pairs(seq, 0, causal)
    assert attention_pairs(seq, window, True) <= attention_pairs(seq, window, False)


@given(
    layers=st.integers(1, 8),
    heads=st.sampled_from([1, 2, 4, 8]),
    groups=st.sampled_from([1, 2, 4, 8]),
    width=st.sampled_from([8, 16]),
    gated=st.booleans(),
    bias=st.booleans(),
    experts=st.integers(0, 4),
    every=st.integers(1, 3),
    seq=st.integers(1, 512),
)
def test_parts_add_up_and_flops_follow_parameters(layers, heads, groups, width, gated, bias, experts, every, seq):
    kv_heads = max(heads // groups, 1)
    moe = Moe(experts, 1 + (experts > 1), 24, every=every) if experts else None
    arch = Architecture(
        "random",
        layers,
        heads * width,
        heads,
        64,
        kv_heads=kv_heads,
        gated_mlp=gated,
        bias=bias,
        position="rope",
        moe=moe,
    )
    ledger = parameter_ledger(arch)
    kinds = arch.layer_kinds()
    layer = [layer_parameters(arch, kind) for kind in kinds]
    assert ledger.total == embedding_parameters(arch).total + sum(p.total for p in layer) + head_parameters(arch).total
    assert 0 < ledger.active <= ledger.total
    # Without attention scores a token costs two FLOPs for each active parameter of a product.
    flops = flop_ledger(arch, seq)
    not_products = sum(p.router + p.replicated for p in layer) + head_parameters(arch).replicated
    biases = 0 if not bias else sum(_column_biases(arch, kind) for kind in kinds)
    assert flops.forward - flops.scores == 2 * (ledger.active - not_products - biases)


def _column_biases(arch: Architecture, kind: str) -> int:
    """Biases beside the matrices: of q, k, v, of the first MLP product, and in experts also of the second."""
    q_k_v = (arch.heads + 2 * arch.kv_heads) * arch.head_dim
    ups = arch.mlp_matrices - 1
    if kind == "dense":
        return q_k_v + ups * arch.ffn_hidden
    return q_k_v + arch.moe.top_k * (ups * arch.moe.expert_ffn_hidden + arch.hidden)
