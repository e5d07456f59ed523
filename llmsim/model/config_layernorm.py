"""Families with LayerNorm out of their config.json: GPT-2 and what came before Llama's form, or stayed with it.

One reader a family, from its fields to `Architecture`'s.
"""

from typing import Any

from llmsim.model.config_fields import ConfigFields
from llmsim.model.config_llama import biases, common, tied, windows


def gpt2(config: ConfigFields) -> dict[str, Any]:
    return {
        "layers": config.need("n_layer"),
        "hidden": config.need("n_embd"),
        "heads": config.need("n_head"),
        "vocab": config.need("vocab_size"),
        "max_positions": config.need("n_positions", "n_ctx"),
        "ffn_hidden": config.get("n_inner"),
        "tied_embeddings": tied(config, True),
    }


def gpt_neox(config: ConfigFields) -> dict[str, Any]:
    attention_bias = config.get("attention_bias", True)
    return {
        **common(config),
        "ffn_hidden": config.need("intermediate_size"),
        "position": "rope",
        "tied_embeddings": tied(config, False),
        "parallel_block": config.get("use_parallel_residual", True),
        "qkv_bias": attention_bias,
        "output_bias": attention_bias,
    }


def gpt_j(config: ConfigFields) -> dict[str, Any]:
    """Attention without biases beside an MLP with them, and a bias on the logits."""
    return {
        **gpt2(config),
        "position": "rope",
        "parallel_block": True,
        "norms_per_layer": 1,
        "qkv_bias": False,
        "output_bias": False,
        "head_bias": True,
        "tied_embeddings": tied(config, False),
    }


def phi(config: ConfigFields) -> dict[str, Any]:
    """Phi 1, 1.5 and 2: attention and MLP side by side, biases everywhere, on the logits too."""
    if config.get("qk_layernorm", False):
        raise config.refuse("qk_layernorm", "false")
    return {
        **common(config),
        "kv_heads": config.get("num_key_value_heads"),
        "ffn_hidden": config.need("intermediate_size"),
        "position": "rope",
        "parallel_block": True,
        "norms_per_layer": 1,
        "head_bias": True,
        "tied_embeddings": tied(config, False),
    }


def opt(config: ConfigFields) -> dict[str, Any]:
    if config.get("word_embed_proj_dim", config.need("hidden_size")) != config.need("hidden_size"):
        raise config.refuse("word_embed_proj_dim", f"hidden_size ({config.need('hidden_size')})")
    return {
        **common(config),
        "max_positions": config.whole("max_position_embeddings") + 2,  # two rows of offset
        "ffn_hidden": config.need("ffn_dim"),
        "bias": config.get("enable_bias", True),
        "tied_embeddings": tied(config, True),
    }


def bloom(config: ConfigFields) -> dict[str, Any]:
    return {
        "layers": config.need("n_layer", "num_hidden_layers"),
        "hidden": config.need("n_embed", "hidden_size"),
        "heads": config.need("n_head", "num_attention_heads"),
        "vocab": config.need("vocab_size"),
        "max_positions": config.get("seq_length", 0),
        "position": "alibi",
        "embedding_norm": True,
        "tied_embeddings": tied(config, True),
    }


def falcon(config: ConfigFields) -> dict[str, Any]:
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
        "tied_embeddings": tied(config, True),
    }


def nemotron(config: ConfigFields) -> dict[str, Any]:
    """LayerNorm with biases, squared ReLU without a gate, no other biases (Nemotron-4, Minitron)."""
    return {
        **common(config),
        **biases(config),
        "kv_heads": config.need_key("num_key_value_heads"),
        "head_dim": config.get("head_dim"),
        "ffn_hidden": config.need("intermediate_size"),
        "position": "rope",
        "mlp_bias": config.get("mlp_bias", False),
        "tied_embeddings": tied(config, False),
    }


def starcoder2(config: ConfigFields) -> dict[str, Any]:
    return {
        **common(config),
        "kv_heads": config.need_key("num_key_value_heads"),
        "ffn_hidden": config.need("intermediate_size"),
        "position": "rope",
        "bias": config.get("use_bias", True),
        "sliding_window": config.get("sliding_window", 0),
        "tied_embeddings": tied(config, True),
    }


def cohere(config: ConfigFields) -> dict[str, Any]:
    """Attention and gated MLP side by side behind one LayerNorm without bias (Command R, R+ and R7B)."""
    return {
        **common(config),
        **biases(config),
        **(windows(config, every=4) if config.kind == "cohere2" else {}),
        "kv_heads": config.get("num_key_value_heads"),
        "head_dim": config.get("head_dim"),
        "ffn_hidden": config.need("intermediate_size"),
        "gated_mlp": True,
        "position": "rope",
        "norm_bias": False,
        "mlp_bias": False,
        "parallel_block": True,
        "norms_per_layer": 1,
        "qk_norm": config.get("use_qk_norm", False),
        "qk_norm_over": "width",
        "tied_embeddings": tied(config, True),
    }
