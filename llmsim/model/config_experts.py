"""Mixtures of experts out of their config.json: one reader a family, from its fields to `Architecture`'s.

Modules of multi-token prediction (num_nextn_predict_layers, use_mtp) stay out, as they do of the published totals.
"""

from typing import Any

from llmsim.model.config_fields import ConfigFields
from llmsim.model.config_llama import FORMS, LLAMA_FORM, Form, biases, common, llama_like, tied, windows


def _local(config: ConfigFields) -> dict[str, Any]:
    """Mixtral's names, which several families took over."""
    return {
        "experts": config.need("num_local_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden": config.need("intermediate_size"),
    }


def mixtral(config: ConfigFields) -> dict[str, Any]:
    return {**llama_like(config, FORMS["mistral"]), "moe": _local(config)}


def granite_moe(config: ConfigFields) -> dict[str, Any]:
    """Granite's mixtures; the hybrid ones only where no layer is a state-space one (Granite 4 micro)."""
    types = config.listed("layer_types") or config.listed("layers_block_type")
    if "mamba" in types or (config.kind == "granitemoehybrid" and not types):
        raise config.unmodelled("Mamba-2 (state-space) layers")
    shared = config.get("shared_intermediate_size", 0)
    shape = llama_like(config, Form())
    if not config.get("num_local_experts", 0) and shared:
        return {**shape, "ffn_hidden": shared}
    return {**shape, "moe": {**_local(config), "shared_experts": int(bool(shared)), "shared_ffn_hidden": shared}}


def olmoe(config: ConfigFields) -> dict[str, Any]:
    experts = {
        "experts": config.need("num_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden": config.need("intermediate_size"),
    }
    return {**llama_like(config, FORMS["olmo2"]), "moe": experts}


def minimax_m2(config: ConfigFields) -> dict[str, Any]:
    if any(kind != 1 for kind in config.listed("attn_type_list")):
        raise config.unmodelled("lightning (linear) attention layers")
    if config.get("shared_intermediate_size", 0):
        raise config.refuse("shared_intermediate_size", "0")
    norm = config.get("qk_norm_type", "per_layer")
    if norm not in ("per_layer", "per_head"):
        raise config.refuse("qk_norm_type", "per_layer or per_head")
    return {
        **llama_like(config, Form(biased=())),
        "head_dim": config.need("head_dim"),
        "qk_norm": config.get("use_qk_norm", True),
        "qk_norm_over": "width" if norm == "per_layer" else "head",
        "moe": {**_local(config), "router_bias": config.get("use_routing_bias", True)},
    }


def _qwen_experts(config: ConfigFields, shared: bool) -> dict[str, Any]:
    dense = config.listed("mlp_only_layers")
    if dense != list(range(len(dense))):
        raise config.refuse("mlp_only_layers", "the first layers, such as [0, 1]")
    experts = {
        "experts": config.need("num_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden": config.need("moe_intermediate_size"),
        "every": config.get("decoder_sparse_step", 1),
        "first_dense": len(dense),
    }
    if not shared:
        return experts
    width = config.need("shared_expert_intermediate_size")
    return {**experts, "shared_experts": 1, "shared_ffn_hidden": width, "shared_gate": True}


def qwen2_moe(config: ConfigFields) -> dict[str, Any]:
    return {**llama_like(config, FORMS["qwen2"]), "moe": _qwen_experts(config, shared=True)}


def qwen3_moe(config: ConfigFields) -> dict[str, Any]:
    return {**llama_like(config, FORMS["qwen3"]), "moe": _qwen_experts(config, shared=False)}


def glm4_moe(config: ConfigFields) -> dict[str, Any]:
    return {
        **llama_like(config, Form(biased=("qkv",))),
        "qk_norm": config.get("use_qk_norm", False),
        "moe": {**_deepseek_experts(config), "router_bias": True},
    }


def dots1(config: ConfigFields) -> dict[str, Any]:
    return {
        **llama_like(config, Form()),
        "qk_norm": True,
        "moe": {**_deepseek_experts(config), "router_bias": True},
    }


def phi_moe(config: ConfigFields) -> dict[str, Any]:
    """Phi 3.5 MoE: LayerNorm, and biases that its file speaks of, on attention and on the logits."""
    return {
        **llama_like(config, FORMS["phi3"]),
        **biases(config),
        "norm": "layernorm",
        "head_bias": config.get("lm_head_bias", False),
        "moe": _local(config),
    }


def _deepseek_experts(config: ConfigFields) -> dict[str, Any]:
    return {
        "experts": config.need("n_routed_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden": config.need("moe_intermediate_size"),
        "shared_experts": config.need_key("n_shared_experts"),
        "first_dense": config.need("first_k_dense_replace"),
        "every": config.get("moe_layer_freq", 1),
        "groups": config.get("n_group", 1) or 1,
        "top_groups": config.get("topk_group", 1) or 1,
    }


def deepseek_v1(config: ConfigFields) -> dict[str, Any]:
    """DeepSeekMoE (arXiv 2401.06066): Llama's attention before routed and shared experts."""
    return {**llama_like(config, Form()), "moe": _deepseek_experts(config)}


def deepseek(config: ConfigFields) -> dict[str, Any]:
    """Latent attention and experts: V2, V3 and those built like V3 (Kimi K2, Moonlight)."""
    mla = {
        "q_lora_rank": config.need_key("q_lora_rank"),
        "kv_lora_rank": config.need("kv_lora_rank"),
        "qk_nope_head_dim": config.need("qk_nope_head_dim"),
        "qk_rope_head_dim": config.need("qk_rope_head_dim"),
        "v_head_dim": config.need("v_head_dim"),
    }
    # The load-balancing correction, one value an expert; V2 has none.
    corrected = config.get("topk_method", "greedy" if config.kind == "deepseek_v2" else "noaux_tc") == "noaux_tc"
    return {
        **common(config),
        **LLAMA_FORM,
        "ffn_hidden": config.need("intermediate_size"),
        "tied_embeddings": tied(config, False),
        **biases(config),
        "mla": mla,
        "indexer": _indexer(config),
        "moe": {**_deepseek_experts(config), "router_bias": corrected},
    }


def _indexer(config: ConfigFields) -> dict[str, Any] | None:
    """Of sparse attention (V3.2, GLM 5); families before it have none."""
    if config.kind not in ("deepseek_v32", "glm_moe_dsa"):
        return None
    return {
        "heads": config.need("index_n_heads"),
        "head_dim": config.need("index_head_dim"),
        "top_k": config.need("index_topk"),
    }


def gpt_oss(config: ConfigFields) -> dict[str, Any]:
    experts = {
        "experts": config.need("num_local_experts"),
        "top_k": config.need("num_experts_per_tok", "experts_per_token"),
        "expert_ffn_hidden": config.need("intermediate_size"),
        "router_bias": True,
    }
    return {
        **common(config),
        **LLAMA_FORM,
        **windows(config, every=2),
        "bias": True,
        "kv_heads": config.need("num_key_value_heads"),
        "head_dim": config.need("head_dim"),
        "ffn_hidden": config.need("intermediate_size"),
        "tied_embeddings": tied(config, False),
        "attention_sinks": True,
        "clamped_glu": True,
        "moe": experts,
    }


def llama4(config: ConfigFields) -> dict[str, Any]:
    experts = {
        "experts": config.need("num_local_experts"),
        "top_k": config.need("num_experts_per_tok"),
        "expert_ffn_hidden": config.need("intermediate_size"),
        "shared_experts": 1,
        "every": config.need("interleave_moe_layer_step"),
    }
    return {
        **common(config),
        **LLAMA_FORM,
        **biases(config),
        "kv_heads": config.need("num_key_value_heads"),
        "head_dim": config.need("head_dim"),
        "ffn_hidden": config.need("intermediate_size_mlp"),
        # The released weights have a head of their own even where the file does not say it.
        "tied_embeddings": tied(config, False),
        # Chunked attention in the layers with RoPE; every fourth has neither RoPE nor chunks.
        "sliding_window": config.get("attention_chunk_size", 0),
        "window_chunks": True,
        "full_attention_every": 4,
        "moe": experts,
    }


def dbrx(config: ConfigFields) -> dict[str, Any]:
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
        "tied_embeddings": tied(config, False),
        "moe": experts,
    }


def qwen3_next(config: ConfigFields) -> dict[str, Any]:
    """Gated delta nets and, in every fourth layer, attention with a gate on its output (also of Qwen 3.5)."""
    every = config.get("full_attention_interval", 4)
    types = config.listed("layer_types")
    full = [i for i, kind in enumerate(types) if kind == "full_attention"]
    unknown = sorted({str(kind) for kind in types} - {"full_attention", "linear_attention"})
    if unknown:
        raise config.unmodelled(f"layers of kind {', '.join(unknown)}")
    if types:
        every = full[0] + 1 if full else 0
        if full != [i for i in range(len(types)) if every and (i + 1) % every == 0]:
            raise config.refuse("layer_types", "full_attention in every n-th layer")
    dense = not config.get("num_experts", 0)
    if not dense and config.get("intermediate_size") is None:  # there is no dense layer
        config = config.with_absent({"intermediate_size": config.need("moe_intermediate_size")})
    return {
        **llama_like(config, Form(needed=("num_key_value_heads", "head_dim"))),
        "qk_norm": True,
        "output_gate": config.get("attn_output_gate", True),
        "full_attention_every": every,
        "linear": {
            "key_heads": config.need("linear_num_key_heads"),
            "value_heads": config.need("linear_num_value_heads"),
            "key_head_dim": config.need("linear_key_head_dim"),
            "value_head_dim": config.need("linear_value_head_dim"),
            "convolution": config.need("linear_conv_kernel_dim"),
        },
        "moe": None if dense else _qwen_experts(config, shared=True),
    }
