"""The families of config.json files: for each model_type its reader, or the kind of layer for which it is refused.

A reader adds what the file does not say: which biases, norms and matrices that family has. Fields that the file must
hold are required and not filled from the library's class defaults, which are those of some other size (Qwen3Config
defaults to 22016 wide MLPs; Qwen3-8B has 12288). Switches, and sizes that released files do leave out, are filled.
To add a family in Llama's form, add a row to `config_llama.FORMS`; else one function and its line here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from llmsim.model import config_experts, config_layernorm
from llmsim.model.config_fields import ConfigFields
from llmsim.model.config_llama import FORMS, llama_like

Reader = Callable[[ConfigFields], dict[str, Any]]

_READERS: dict[str, Reader] = {
    **dict.fromkeys(FORMS, llama_like),
    "bloom": config_layernorm.bloom,
    "cohere": config_layernorm.cohere,
    "cohere2": config_layernorm.cohere,
    "dbrx": config_experts.dbrx,
    "deepseek": config_experts.deepseek_v1,
    "deepseek_v2": config_experts.deepseek,
    "deepseek_v3": config_experts.deepseek,
    "deepseek_v32": config_experts.deepseek,
    "dots1": config_experts.dots1,
    "falcon": config_layernorm.falcon,
    "glm4_moe": config_experts.glm4_moe,
    "glm4_moe_lite": config_experts.deepseek,
    "glm_moe_dsa": config_experts.deepseek,
    "glm4v_moe_text": config_experts.glm4_moe,
    "gpt2": config_layernorm.gpt2,
    "gptj": config_layernorm.gpt_j,
    "gpt_neox": config_layernorm.gpt_neox,
    "gpt_oss": config_experts.gpt_oss,
    "granitemoe": config_experts.granite_moe,
    "granitemoehybrid": config_experts.granite_moe,
    "granitemoeshared": config_experts.granite_moe,
    "kimi_k2": config_experts.deepseek,
    "llama4_text": config_experts.llama4,
    "minimax_m2": config_experts.minimax_m2,
    "mixtral": config_experts.mixtral,
    "nemotron": config_layernorm.nemotron,
    "olmoe": config_experts.olmoe,
    "opt": config_layernorm.opt,
    "phi": config_layernorm.phi,
    "phimoe": config_experts.phi_moe,
    "qwen2_moe": config_experts.qwen2_moe,
    "qwen3_5_moe_text": config_experts.qwen3_next,
    "qwen3_5_text": config_experts.qwen3_next,
    "qwen3_moe": config_experts.qwen3_moe,
    "qwen3_next": config_experts.qwen3_next,
    "qwen3_vl_moe_text": config_experts.qwen3_moe,
    "starcoder2": config_layernorm.starcoder2,
}
READERS: Mapping[str, Reader] = dict(sorted(_READERS.items()))

_MAMBA = "Mamba (state-space) layers"
_MAMBA2 = "Mamba-2 (state-space) layers"
_LIGHTNING = "lightning (linear) attention layers"
#: Families whose layers are not modelled, each with the kind of layer.
UNMODELLED: Mapping[str, str] = {
    "bamba": _MAMBA2,
    "falcon_h1": _MAMBA2,
    "falcon_mamba": _MAMBA,
    "gemma3n_text": "layers with embeddings of their own and alternating updates",
    "jamba": _MAMBA,
    "kimi_linear": "Kimi delta (linear) attention layers",
    "lfm2": "short convolution layers",
    "lfm2_moe": "short convolution layers",
    "mamba": _MAMBA,
    "mamba2": _MAMBA2,
    "minimax": _LIGHTNING,
    "minimax_m1": _LIGHTNING,
    "minimax_text_01": _LIGHTNING,
    "mllama_text_model": "cross-attention layers",
    "nemotron-nas": "layers that each have a shape of their own",
    "nemotron_h": _MAMBA2,
    "recurrent_gemma": "recurrent (RG-LRU) layers",
    "rwkv": "RWKV (recurrent) layers",
    "zamba": _MAMBA,
    "zamba2": _MAMBA2,
}
