"""What a config.json of each model_type means: one reader a family, from its fields to `Architecture`'s.

A reader adds what the file does not say: which biases, norms and matrices that family has. Fields that the file must
hold are required and never filled from the library's class defaults, which are those of some other size (Qwen3Config
defaults to 22016 wide MLPs; Qwen3-8B has 12288). To add a family, add one function and its line in `READERS`.
"""

from collections.abc import Callable
from typing import Any

from llmsim.model.config_fields import ConfigFields

_LLAMA_LIKE = {"gated_mlp": True, "position": "rope", "norm": "rmsnorm", "bias": False}


def _common(config: ConfigFields) -> dict[str, Any]:
    """The names that most families share."""
    return {
        "layers": config.need("num_hidden_layers"),
        "hidden": config.need("hidden_size"),
        "heads": config.need("num_attention_heads"),
        "vocab": config.need("vocab_size"),
        "max_positions": config.get("max_position_embeddings", 0),
    }


def _windows(config: ConfigFields) -> dict[str, Any]:
    """`layer_types` as a period of full layers among sliding ones."""
    types, window = config.listed("layer_types"), config.get("sliding_window")
    if window is None or "sliding_attention" not in types:
        return {}
    full = [i + 1 for i, kind in enumerate(types) if kind == "full_attention"]
    every = full[0] if full else 0
    if full != [i + 1 for i in range(len(types)) if every and (i + 1) % every == 0]:
        raise config.refuse("layer_types", "full_attention in every n-th layer")
    return {"sliding_window": window, "full_attention_every": every}


def _llama(config: ConfigFields) -> dict[str, Any]:
    attention_bias = config.get("attention_bias", False)
    return {
        **_common(config),
        **_LLAMA_LIKE,
        # Null or absent means multi-head attention: LLaMA 1 files predate the field.
        "kv_heads": config.get("num_key_value_heads"),
        "head_dim": config.get("head_dim"),
        "ffn_hidden": config.need("intermediate_size"),
        "tied_embeddings": config.need("tie_word_embeddings"),
        "qkv_bias": attention_bias,
        "output_bias": attention_bias,
        "mlp_bias": config.get("mlp_bias", False),
    }


def _mistral(config: ConfigFields) -> dict[str, Any]:
    return {
        **_llama(config),
        "kv_heads": config.need_key("num_key_value_heads"),
        "sliding_window": config.get("sliding_window", 0),
    }


def _mixtral(config: ConfigFields) -> dict[str, Any]:
    experts = {
        "experts": config.need("num_local_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden": config.need("intermediate_size"),
    }
    return {**_mistral(config), "moe": experts}


def _qwen2(config: ConfigFields) -> dict[str, Any]:
    if config.get("use_sliding_window", False) and not config.get("layer_types"):
        raise config.refuse("use_sliding_window", "false, or a list layer_types")
    return {
        **_llama(config),
        **_windows(config),
        "kv_heads": config.need_key("num_key_value_heads"),
        "qkv_bias": True,  # no field says so
        "output_bias": False,
    }


def _qwen3(config: ConfigFields) -> dict[str, Any]:
    attention_bias = config.get("attention_bias", False)
    return {
        **_qwen2(config),
        "head_dim": config.need("head_dim"),
        "qkv_bias": attention_bias,
        "output_bias": attention_bias,
        "qk_norm": True,
    }


def _qwen_moe(config: ConfigFields) -> dict[str, Any]:
    dense = config.listed("mlp_only_layers")
    if dense != list(range(len(dense))):
        raise config.refuse("mlp_only_layers", "the first layers, such as [0, 1]")
    return {
        "experts": config.need("num_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden": config.need("moe_intermediate_size"),
        "every": config.need("decoder_sparse_step"),
        "first_dense": len(dense),
    }


def _qwen2_moe(config: ConfigFields) -> dict[str, Any]:
    shared = {
        "shared_experts": 1,
        "shared_ffn_hidden": config.need("shared_expert_intermediate_size"),
        "shared_gate": True,
    }
    return {**_qwen2(config), "moe": {**_qwen_moe(config), **shared}}


def _qwen3_moe(config: ConfigFields) -> dict[str, Any]:
    return {**_qwen3(config), "moe": _qwen_moe(config)}


def _gpt2(config: ConfigFields) -> dict[str, Any]:
    return {
        "layers": config.need("n_layer"),
        "hidden": config.need("n_embd"),
        "heads": config.need("n_head"),
        "vocab": config.need("vocab_size"),
        "max_positions": config.need("n_positions", "n_ctx"),
        "ffn_hidden": config.get("n_inner"),
        # The library leaves out values that equal its own default, and tying is the default here.
        "tied_embeddings": config.get("tie_word_embeddings", True),
    }


def _gpt_neox(config: ConfigFields) -> dict[str, Any]:
    attention_bias = config.get("attention_bias", True)
    return {
        **_common(config),
        "ffn_hidden": config.need("intermediate_size"),
        "position": "rope",
        "tied_embeddings": config.need("tie_word_embeddings"),
        "parallel_block": config.get("use_parallel_residual", True),
        "qkv_bias": attention_bias,
        "output_bias": attention_bias,
    }


def _gemma2(config: ConfigFields) -> dict[str, Any]:
    window = _windows(config)
    if not config.get("layer_types"):
        # Files older than `layer_types`: layers 0, 2, 4… slide.
        window = {"sliding_window": config.need("sliding_window"), "full_attention_every": 2}
    return {
        **_common(config),
        **_LLAMA_LIKE,
        **window,
        "kv_heads": config.need("num_key_value_heads"),
        "head_dim": config.need("head_dim"),
        "ffn_hidden": config.need("intermediate_size"),
        "tied_embeddings": config.get("tie_word_embeddings", True),
        "norms_per_layer": 4,
        "qkv_bias": config.get("attention_bias", False),
        "output_bias": config.get("attention_bias", False),
    }


def _deepseek(config: ConfigFields) -> dict[str, Any]:
    # MTP modules (num_nextn_predict_layers) stay out, as they do of the published totals.
    mla = {
        "q_lora_rank": config.need_key("q_lora_rank"),
        "kv_lora_rank": config.need("kv_lora_rank"),
        "qk_nope_head_dim": config.need("qk_nope_head_dim"),
        "qk_rope_head_dim": config.need("qk_rope_head_dim"),
        "v_head_dim": config.need("v_head_dim"),
    }
    experts = {
        "experts": config.need("n_routed_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden": config.need("moe_intermediate_size"),
        "shared_experts": config.need_key("n_shared_experts"),
        "first_dense": config.need("first_k_dense_replace"),
        "every": config.get("moe_layer_freq", 1),
        "groups": config.get("n_group", 1) or 1,
        "top_groups": config.get("topk_group", 1) or 1,
        "router_bias": config.kind == "deepseek_v3",  # the load-balancing correction, one value an expert
    }
    return {
        **_common(config),
        **_LLAMA_LIKE,
        "ffn_hidden": config.need("intermediate_size"),
        "tied_embeddings": config.need("tie_word_embeddings"),
        "mla": mla,
        "moe": experts,
    }


def _gpt_oss(config: ConfigFields) -> dict[str, Any]:
    experts = {
        "experts": config.need("num_local_experts"),
        "top_k": config.need("num_experts_per_tok", "experts_per_token"),
        "expert_ffn_hidden": config.need("intermediate_size"),
        "router_bias": True,
    }
    return {
        **_common(config),
        **_LLAMA_LIKE,
        **_windows(config),
        "bias": True,
        "kv_heads": config.need("num_key_value_heads"),
        "head_dim": config.need("head_dim"),
        "ffn_hidden": config.need("intermediate_size"),
        "tied_embeddings": config.need("tie_word_embeddings"),
        "attention_sinks": True,
        "clamped_glu": True,
        "moe": experts,
    }


def _llama4(config: ConfigFields) -> dict[str, Any]:
    # The language model alone; the released weights have a head of their own even where the file does not say it.
    tied = config.get("tie_word_embeddings", False)
    text = config.inner("text_config") if "text_config" in config.fields else config
    experts = {
        "experts": text.need("num_local_experts"),
        "top_k": text.need("num_experts_per_tok"),
        "expert_ffn_hidden": text.need("intermediate_size"),
        "shared_experts": 1,
        "every": text.need("interleave_moe_layer_step"),
    }
    return {
        **_common(text),
        **_LLAMA_LIKE,
        "kv_heads": text.need("num_key_value_heads"),
        "head_dim": text.need("head_dim"),
        "ffn_hidden": text.need("intermediate_size_mlp"),
        "tied_embeddings": text.get("tie_word_embeddings", tied),
        # Chunked attention in the layers with RoPE; every fourth has neither RoPE nor chunks.
        "sliding_window": text.get("attention_chunk_size", 0),
        "full_attention_every": 4,
        "moe": experts,
    }


def _dbrx(config: ConfigFields) -> dict[str, Any]:
    attention, ffn = config.inner("attn_config"), config.inner("ffn_config")
    experts = {
        "experts": ffn.need("moe_num_experts"),
        "top_k": ffn.need("moe_top_k"),
        "expert_ffn_hidden": ffn.need("ffn_hidden_size"),
    }
    return {
        "layers": config.need("n_layers"),
        "hidden": config.need("d_model"),
        "heads": config.need("n_heads"),
        "kv_heads": attention.need("kv_n_heads"),
        "ffn_hidden": ffn.need("ffn_hidden_size"),
        "vocab": config.need("vocab_size"),
        "max_positions": config.get("max_seq_len", 0),
        "gated_mlp": True,
        "position": "rope",
        "norm_bias": False,
        "bias": False,
        "tied_embeddings": config.need("tie_word_embeddings"),
        "moe": experts,
    }


def _opt(config: ConfigFields) -> dict[str, Any]:
    if config.get("word_embed_proj_dim", config.need("hidden_size")) != config.need("hidden_size"):
        raise config.refuse("word_embed_proj_dim", f"hidden_size ({config.need('hidden_size')})")
    return {
        **_common(config),
        "max_positions": config.whole("max_position_embeddings") + 2,  # two rows of offset
        "ffn_hidden": config.need("ffn_dim"),
        "bias": config.get("enable_bias", True),
        "tied_embeddings": config.get("tie_word_embeddings", True),
    }


def _bloom(config: ConfigFields) -> dict[str, Any]:
    return {
        "layers": config.need("n_layer", "num_hidden_layers"),
        "hidden": config.need("n_embed", "hidden_size"),
        "heads": config.need("n_head", "num_attention_heads"),
        "vocab": config.need("vocab_size"),
        "max_positions": config.get("seq_length", 0),
        "position": "alibi",
        "embedding_norm": True,
        "tied_embeddings": config.get("tie_word_embeddings", True),
    }


def _falcon(config: ConfigFields) -> dict[str, Any]:
    grouped = config.get("new_decoder_architecture", False)
    heads = config.need("num_attention_heads", "n_head")
    kv_heads = 1 if config.get("multi_query", False) else heads
    if grouped:
        kv_heads = config.need("num_kv_heads", "n_head_kv")
    parallel = config.get("parallel_attn", True)
    return {
        "layers": config.need("num_hidden_layers", "n_layer"),
        "hidden": config.need("hidden_size"),
        "heads": heads,
        "kv_heads": kv_heads,
        "vocab": config.need("vocab_size"),
        "max_positions": config.get("max_position_embeddings", 0),
        "ffn_hidden": config.get("ffn_hidden_size"),
        "position": "alibi" if config.get("alibi", False) else "rope",
        "bias": config.need("bias"),
        "norm_bias": True,
        "parallel_block": parallel or grouped,
        "norms_per_layer": config.get("num_ln_in_parallel_attn", 2) if grouped or not parallel else 1,
        "tied_embeddings": config.get("tie_word_embeddings", True),
    }


READERS: dict[str, Callable[[ConfigFields], dict[str, Any]]] = {
    "bloom": _bloom,
    "dbrx": _dbrx,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "falcon": _falcon,
    "gemma2": _gemma2,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "gpt_oss": _gpt_oss,
    "llama": _llama,
    "llama4": _llama4,
    "llama4_text": _llama4,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "opt": _opt,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
}
