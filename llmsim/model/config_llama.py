"""Decoders in Llama's form out of their config.json: one row a family for what no file says, and one reader for all.

The form: RMSNorm before attention and before a gated MLP, rotary positions, grouped keys and values, no biases.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmsim.model.config_fields import ConfigFields

_GROUPS, _WIDTH = "num_key_value_heads", "head_dim"
LLAMA_FORM = {"gated_mlp": True, "position": "rope", "norm": "rmsnorm", "bias": False}


@dataclass(frozen=True, slots=True)
class Form:
    """How one family departs from Llama.

    tied: what an absent tie_word_embeddings means, since the library leaves out what equals its class's default.
    biased: the projections that attention_bias speaks of. window: how windowed layers are said, one of
    none (all layers see everything), all (sliding_window holds for every layer), listed (by layer_types only).
    every: layers of which the last is full, where neither layer_types nor a pattern is given.
    needed: fields that must be there although Llama's own files may lack them (null has a meaning).
    shape: fields of `Architecture` that no file says. absent: what the class puts in place of fields left out.
    """

    tied: bool = False
    biased: tuple[str, ...] = ("qkv", "output")
    window: str = "none"
    every: int = 0
    needed: tuple[str, ...] = (_GROUPS,)
    shape: Mapping[str, Any] = field(default_factory=dict)
    absent: Mapping[str, Any] = field(default_factory=dict)


_WIDE_QK_NORM = {"qk_norm": True, "qk_norm_over": "width"}
_QWEN2 = Form(window="listed", shape={"qkv_bias": True, "output_bias": False})
_QWEN3 = Form(window="listed", needed=(_GROUPS, _WIDTH), shape={"qk_norm": True})
# Released files of Gemma 3 leave these out: Gemma3TextConfig has them.
_GEMMA3 = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208}

FORMS: dict[str, Form] = {
    "arcee": Form(shape={"gated_mlp": False}),
    "exaone4": Form(window="listed", shape={"qk_norm": True}),
    "gemma": Form(tied=True, needed=(_GROUPS, _WIDTH)),
    "gemma2": Form(tied=True, window="listed", every=2, needed=(_GROUPS, _WIDTH), shape={"norms_per_layer": 4}),
    "gemma3_text": Form(
        tied=True, window="listed", every=6, shape={"norms_per_layer": 4, "qk_norm": True}, absent=_GEMMA3
    ),
    "glm": Form(biased=("qkv",), needed=(_GROUPS, _WIDTH)),
    "glm4": Form(biased=("qkv",), shape={"norms_per_layer": 4}),
    "glm4v_text": Form(biased=("qkv",), shape={"norms_per_layer": 4}),
    "granite": Form(),
    "llama": Form(needed=()),
    "mimo": _QWEN2,
    "ministral": Form(biased=(), window="all"),
    "ministral3": Form(biased=(), window="all"),
    "mistral": Form(biased=(), window="all"),
    "olmo2": Form(shape=_WIDE_QK_NORM),
    "olmo3": Form(window="listed", every=4, shape=_WIDE_QK_NORM),
    "phi3": Form(biased=(), window="all"),
    "qwen2": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_vl_text": _QWEN3,
    "seed_oss": Form(biased=("qkv",)),
    "smollm3": Form(tied=True, window="listed"),
}


def common(config: ConfigFields) -> dict[str, Any]:
    """The names that most families share."""
    return {
        "layers": config.need("num_hidden_layers"),
        "hidden": config.need("hidden_size"),
        "heads": config.need("num_attention_heads"),
        "vocab": config.need("vocab_size"),
        "max_positions": config.get("max_position_embeddings", 0),
    }


def tied(config: ConfigFields, absent: bool) -> bool:
    """Whether the head is the embedding; `absent`: what the family's class says where the file does not."""
    value = config.get("tie_word_embeddings", absent)
    if not isinstance(value, bool):
        raise config.refuse("tie_word_embeddings", "true or false")
    return value


def biases(config: ConfigFields, of: tuple[str, ...] = ("qkv", "output")) -> dict[str, Any]:
    """attention_bias as the projections that it speaks of."""
    given = config.get("attention_bias", False)
    return {"qkv_bias": given if "qkv" in of else False, "output_bias": given if "output" in of else False}


def windows(config: ConfigFields, every: int = 0) -> dict[str, Any]:
    """`layer_types`, or a pattern, as a period of full layers among sliding ones.

    every: the period of files without either; 0: no layer slides then.
    """
    types, window = config.listed("layer_types"), config.get("sliding_window")
    if not types:
        every = config.get("sliding_window_pattern", every)
        return {"sliding_window": config.need("sliding_window"), "full_attention_every": every} if every else {}
    unknown = sorted({str(kind) for kind in types} - {"full_attention", "sliding_attention"})
    if unknown:
        raise config.unmodelled(f"layers of kind {', '.join(unknown)}")
    if window is None or "sliding_attention" not in types:
        return {}
    full = [i + 1 for i, kind in enumerate(types) if kind == "full_attention"]
    every = full[0] if full else 0
    if full != [i + 1 for i in range(len(types)) if every and (i + 1) % every == 0]:
        raise config.refuse("layer_types", "full_attention in every n-th layer")
    return {"sliding_window": window, "full_attention_every": every}


def llama_like(config: ConfigFields, form: Form | None = None) -> dict[str, Any]:
    """The fields of `Architecture` for a dense decoder of this family (`form`: of another family's)."""
    form = form or FORMS[config.kind]
    config = config.with_absent(form.absent)
    if config.get("use_sliding_window", False) and form.shape.get("qkv_bias") and not config.get("layer_types"):
        raise config.refuse("use_sliding_window", "false, or a list layer_types")
    for name in form.needed:
        config.need_key(name)
    return {
        **common(config),
        **LLAMA_FORM,
        # Null or absent means multi-head attention: LLaMA 1 files predate the field.
        "kv_heads": config.get("num_key_value_heads"),
        "head_dim": config.get("head_dim"),
        "ffn_hidden": config.need("intermediate_size"),
        "tied_embeddings": tied(config, form.tied),
        **biases(config, form.biased),
        "mlp_bias": config.get("mlp_bias", False),
        **_form_windows(config, form),
        **form.shape,
        **({"output_bias": config.get("attention_out_bias", False)} if config.kind == "seed_oss" else {}),
    }


def _form_windows(config: ConfigFields, form: Form) -> dict[str, Any]:
    if form.window == "none":
        return {}
    if form.window == "all" and not config.get("layer_types"):
        return {"sliding_window": config.get("sliding_window", 0)}
    return windows(config, form.every)
