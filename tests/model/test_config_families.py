"""Families of config.json: published totals of files written as the library writes them, and layers not modelled."""

import pytest

from llmsim.errors import ModelError
from llmsim.model.attention import attention_chain
from llmsim.model.config_families import READERS, UNMODELLED
from llmsim.model.huggingface import architecture_from_config
from llmsim.model.layer import Shard, communication_bytes, layer_steps
from llmsim.model.parameters import active_parameters, layer_parameters, parameters


def shape(kind, hidden, layers, heads, kv_heads, width, vocab, **others):
    """The fields that most families share; what a family's class would fill in is left out, tying above all."""
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": width,
        "vocab_size": vocab,
        **others,
    }


def text(kind, inner, **outer):
    return {"model_type": kind, "text_config": inner, "vision_config": {"hidden_size": 64}, **outer}


_DEEPSEEK_MOE = {
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1,
}
_KIMI = {
    **{"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
    **{"n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 2048},
    **{"first_k_dense_replace": 1, "topk_method": "noaux_tc"},
}
_V2 = {
    **{"q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
    **{"n_routed_experts": 160, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1536},
    "first_k_dense_replace": 1,
}
_AIR = {
    **{"n_routed_experts": 128, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 1408},
    **{"first_k_dense_replace": 1, "head_dim": 128, "attention_bias": True},
}
_HYBRID = {"num_local_experts": 0, "shared_intermediate_size": 8192, "tie_word_embeddings": True}

# Totals of the public weights to the unit (safetensors metadata on the hub), tied heads counted once.
PUBLISHED = {
    "gemma-2b": (shape("gemma", 2048, 18, 8, 1, 16384, 256000, head_dim=256), 2_506_172_416),
    "gemma-7b": (shape("gemma", 3072, 28, 16, 16, 24576, 256000, head_dim=256), 8_537_680_896),
    "gemma2-9b": (
        shape("gemma2", 3584, 42, 16, 8, 14336, 256000, head_dim=256, sliding_window=4096),
        9_241_705_984,
    ),
    "gemma3-1b": (
        shape("gemma3_text", 1152, 26, 4, 1, 6912, 262144, head_dim=256, sliding_window=512),
        999_885_952,
    ),
    "phi3-mini": (shape("phi3", 3072, 32, 32, 32, 8192, 32064, sliding_window=2047), 3_821_079_552),
    "phi4": (shape("phi3", 5120, 40, 40, 10, 17920, 100352), 14_659_507_200),
    "phi4-mini": (shape("phi3", 3072, 32, 24, 8, 8192, 200064, tie_word_embeddings=True), 3_836_021_760),
    "olmo2-7b": (shape("olmo2", 4096, 32, 32, 32, 11008, 100352), 7_298_617_344),
    "olmo2-13b": (shape("olmo2", 5120, 40, 40, 40, 13824, 100352), 13_716_198_400),
    "olmo3-7b": (shape("olmo3", 4096, 32, 32, 32, 11008, 100278, sliding_window=4096), 7_298_011_136),
    "glm4-9b": (shape("glm4", 4096, 40, 32, 2, 13696, 151552, attention_bias=True, head_dim=128), 9_400_279_040),
    "granite3.1-8b": (shape("granite", 4096, 40, 32, 8, 12800, 49155, tie_word_embeddings=True), 8_170_848_256),
    "ministral-8b": (
        shape("mistral", 4096, 36, 32, 8, 12288, 131072, head_dim=128, sliding_window=32768),
        8_019_808_256,
    ),
    "mistral-nemo": (shape("mistral", 5120, 40, 32, 8, 14336, 131072, head_dim=128), 12_247_782_400),
    "starcoder2-3b": (shape("starcoder2", 3072, 30, 24, 2, 12288, 49152), 3_030_371_328),
    "command-r": (shape("cohere", 8192, 40, 64, 64, 22528, 256000), 34_980_831_232),
    "command-r-plus": (shape("cohere", 12288, 64, 96, 8, 33792, 256000, use_qk_norm=True), 103_810_674_688),
    "command-r7b": (shape("cohere2", 4096, 32, 32, 8, 14336, 256000, sliding_window=4096), 8_028_033_024),
    "smollm3-3b": (shape("smollm3", 2048, 36, 16, 4, 11008, 128256), 3_075_098_624),
    "seed-oss-36b": (
        shape("seed_oss", 5120, 64, 80, 8, 27648, 155136, head_dim=128, attention_bias=True),
        36_151_104_512,
    ),
    "qwen3-235b": (
        shape("qwen3_moe", 4096, 94, 64, 4, 12288, 151936, head_dim=128, num_experts=128, num_experts_per_tok=8,
              moe_intermediate_size=1536),
        235_093_634_560,
    ),
    "deepseek-moe-16b": (shape("deepseek", 2048, 28, 16, 16, 10944, 102400, **_DEEPSEEK_MOE), 16_375_728_128),
    "qwen2.5-0.5b": (shape("qwen2", 896, 24, 14, 2, 4864, 151936, tie_word_embeddings=True), 494_032_768),
    "exaone4-32b": (shape("exaone4", 5120, 64, 40, 8, 27392, 102400, head_dim=128), 32_003_216_384),
    "phi-2": (shape("phi", 2560, 32, 32, 32, 10240, 51200), 2_779_683_840),
    "phi3.5-moe": (
        shape("phimoe", 4096, 32, 32, 8, 6400, 32064, num_local_experts=16, num_experts_per_tok=2,
              attention_bias=True, lm_head_bias=True),
        41_873_153_344,
    ),
    "gpt-j-6b": (
        {"model_type": "gptj", "n_layer": 28, "n_embd": 4096, "n_head": 16, "vocab_size": 50400, "n_positions": 2048},
        6_050_882_784,
    ),
    "pythia-6.9b": (
        {key: value for key, value in shape("gpt_neox", 4096, 32, 32, 0, 16384, 50432).items() if "kv" not in key},
        6_857_302_016,
    ),
    "falcon-rw-1b": (
        {"model_type": "falcon", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
         "vocab_size": 50304, "bias": True, "alibi": True, "parallel_attn": False, "multi_query": False},
        1_311_625_216,
    ),
    "bloom-7b1": (
        {"model_type": "bloom", "n_layer": 30, "hidden_size": 4096, "n_head": 32, "vocab_size": 250880},
        7_069_016_064,
    ),
    "opt-125m": (
        {"model_type": "opt", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072,
         "vocab_size": 50272, "max_position_embeddings": 2048},
        125_239_296,
    ),
    "gpt-oss-120b": (
        shape("gpt_oss", 2880, 36, 64, 8, 2880, 201088, head_dim=64, num_local_experts=128, num_experts_per_tok=4,
              sliding_window=128),
        116_829_156_672,
    ),
    "deepseek-v2": (
        shape("deepseek_v2", 5120, 60, 128, 128, 12288, 102400, topk_method="group_limited_greedy", **_V2),
        235_741_434_880,
    ),
    "dots1": (
        shape("dots1", 4096, 62, 32, 32, 10944, 152064, **{**_DEEPSEEK_MOE, "n_routed_experts": 128}),
        142_774_381_696,
    ),
    "olmoe": (
        shape("olmoe", 2048, 16, 16, 16, 1024, 50304, num_experts=64, num_experts_per_tok=8),
        6_919_161_856,
    ),
    "granite3.1-3b-a800m": (
        shape("granitemoe", 1536, 32, 24, 8, 512, 49155, num_local_experts=40, num_experts_per_tok=8,
              tie_word_embeddings=True),
        3_298_793_472,
    ),
}  # fmt: skip

# Rounded totals and active parameters, in billions, as their authors give them.
ROUNDED = {
    "kimi-k2": (shape("kimi_k2", 7168, 61, 64, 64, 18432, 163840, **_KIMI), 1040, 32.6),  # arXiv 2507.20534, table 2
    "glm4.5-air": (shape("glm4_moe", 4096, 46, 96, 8, 10944, 151552, **_AIR), 106, 12),  # arXiv 2508.06471
    "minimax-m2": (
        shape("minimax_m2", 3072, 62, 48, 8, 1536, 200064, head_dim=128, num_local_experts=256, num_experts_per_tok=8),
        230,
        10,
    ),
    "nemotron4-340b": (shape("nemotron", 18432, 96, 96, 8, 73728, 256000), 340, 340),  # arXiv 2406.11704
    "mistral-small3.1": (
        text("mistral3", shape("mistral", 5120, 40, 32, 8, 32768, 131072, head_dim=128)), 24, 24,
    ),
    "llama4-maverick": (
        text("llama4", shape("llama4_text", 5120, 48, 40, 8, 8192, 202048, head_dim=128, num_local_experts=128,
                             num_experts_per_tok=1, interleave_moe_layer_step=2, intermediate_size_mlp=16384)),
        400, 17,
    ),
    "granite4-micro": (
        shape("granitemoehybrid", 2560, 40, 40, 8, 8192, 100352, layer_types=["attention"] * 40, **_HYBRID), 3.4, 3.4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals_to_the_unit(name):
    fields, total = PUBLISHED[name]
    assert parameters(architecture_from_config(fields, name)) == total


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_totals(name):
    fields, total, active = ROUNDED[name]
    arch = architecture_from_config(fields, name)
    assert parameters(arch) == pytest.approx(total * 1e9, rel=0.02)
    assert active_parameters(arch) == pytest.approx(active * 1e9, rel=0.15)


def test_what_an_absent_tie_means_is_the_class_default():
    """Llama's class says false, Gemma's true: a released Llama 3.1 8B has 128256 × 4096 parameters more for it."""
    llama = shape("llama", 4096, 32, 32, 8, 14336, 128256)
    assert parameters(architecture_from_config(llama, "x")) == 8_030_261_248
    tied = architecture_from_config({**llama, "tie_word_embeddings": True}, "x")
    assert parameters(tied) == 8_030_261_248 - 128256 * 4096
    assert architecture_from_config(PUBLISHED["gemma-2b"][0], "x").tied_embeddings


def test_gemma3_files_leave_out_what_their_class_has():
    inner = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
             "sliding_window": 1024}  # fmt: skip
    arch = architecture_from_config(text("gemma3", inner), "gemma3-4b")
    assert (arch.heads, arch.kv_heads, arch.head_dim, arch.vocab) == (8, 4, 256, 262_208)
    assert parameters(arch) == 3_880_263_168  # 4,300,079,472 with the vision tower and its projection


def test_sliding_and_global_layers():
    gemma = architecture_from_config(PUBLISHED["gemma3-1b"][0], "x")
    assert gemma.layer_windows()[:7] == (512, 512, 512, 512, 512, 0, 512)
    fewer = {**PUBLISHED["gemma3-1b"][0], "sliding_window_pattern": 2}
    assert architecture_from_config(fewer, "x").layer_windows()[:4] == (512, 0, 512, 0)
    listed = ["sliding_attention"] * 3 + ["full_attention"]
    olmo = PUBLISHED["olmo3-7b"][0]
    assert architecture_from_config({**olmo, "layer_types": listed * 8}, "x") == architecture_from_config(olmo, "x")
    assert architecture_from_config(PUBLISHED["phi3-mini"][0], "x").layer_windows() == (2047,) * 32


def test_the_outer_file_says_whether_the_head_is_tied():
    inner = shape("ministral3", 3072, 26, 32, 8, 9216, 131072, head_dim=128)
    arch = architecture_from_config(text("mistral3", inner, tie_word_embeddings=True), "x")
    assert arch.tied_embeddings and parameters(arch) == 3_429_006_336
    assert not architecture_from_config(text("mistral3", inner), "x").tied_embeddings


def test_norms_of_the_whole_width_on_q_and_k():
    """Gains of all heads, split with them over tp, and one all-reduce of two sums a token each way."""
    fields = PUBLISHED["olmo2-7b"][0]
    arch = architecture_from_config(fields, "x")
    llama = architecture_from_config({**fields, "model_type": "llama"}, "x")
    wide, plain = layer_parameters(arch, "dense"), layer_parameters(llama, "dense")
    assert wide.attention_sharded - plain.attention_sharded == 2 * 4096 and wide.kv_sharded - plain.kv_sharded == 4096
    assert wide.replicated == plain.replicated
    for tp, sums in ((1, 0), (4, 2 * 2048 * 4)):
        shard = Shard(1, 2048, tp=tp)
        for part in ("forward", "backward"):
            ours, theirs = (communication_bytes(getattr(layer_steps(a, shard), part)) for a in (arch, llama))
            key = ("tp", "all_reduce")
            assert ours.get(key, 0) - theirs.get(key, 0) == sums
    names = [step.name for operator in attention_chain(arch, Shard(1, 2048), 0) for step in
             getattr(operator, "forward", ())]  # fmt: skip
    assert "qk_norm" in names and "qk_norm_sums" not in names


@pytest.mark.parametrize("kind", UNMODELLED)
def test_layers_that_are_not_modelled_are_named(kind):
    assert kind not in READERS
    with pytest.raises(ModelError) as error:
        architecture_from_config(shape(kind, 64, 2, 4, 4, 128, 100), "x", "here/config.json")
    sentence = str(error.value)
    assert sentence.startswith(f"here/config.json: model_type '{kind}' has {UNMODELLED[kind]}, which are not modelled")
    assert "\n" not in sentence and sentence.count("; ") == 1


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            shape("minimax_m2", 64, 2, 4, 4, 128, 100, head_dim=16, attn_type_list=[1, 0]),
            "has lightning (linear) attention layers, which are not modelled",
        ),
        (
            shape("granitemoehybrid", 64, 2, 4, 4, 128, 100, layer_types=["mamba", "attention"]),
            "has Mamba-2 (state-space) layers, which are not modelled",
        ),
        (
            shape("qwen3", 64, 2, 4, 4, 128, 100, head_dim=16, layer_types=["conv", "full_attention"]),
            "has layers of kind conv, which are not modelled",
        ),
        (
            text("gemma3n", {"model_type": "gemma3n_text"}),
            "model_type 'gemma3n_text' has layers with embeddings of their own",
        ),
        (text("llava", {"hidden_size": 64}), "model_type 'llava_text' is not supported; expected one of"),
        ({"model_type": "mistral3", "text_config": 3}, "text_config = 3 is not an object"),
        (
            shape("minimax_m2", 64, 2, 4, 4, 128, 100, head_dim=16, qk_norm_type="per_token"),
            "qk_norm_type = 'per_token' is not supported; expected per_layer or per_head",
        ),
    ],
)
def test_mistakes_are_one_sentence(fields, message):
    with pytest.raises(ModelError) as error:
        architecture_from_config(fields, "x", "here/config.json")
    sentence = str(error.value)
    assert sentence.startswith("here/config.json: ") and message in sentence and "\n" not in sentence
