"""What autograd keeps: bytes saved between the forward and the backward of a layer, and what a backward works in.

In the setting of Korthikanti et al. 2022 (arXiv 2205.05198: unfused attention, GELU, dropout, 16-bit) the ledger sums
to their equations: sbh(10 + 24/t + 5as/(ht)) with tensor parallelism, sbh/t·(34 + 5as/h) with sequence parallelism,
the s² term gone when recomputation is selective, 2sbh (or 2sbh/t) when it is full. Everything else follows from what
each operator's backward reads: flash attention its output and one logsumexp a row, SwiGLU gate and up, and so on.
"""

from collections.abc import Mapping

from llmsim.model.architecture import Architecture, LayerKind, has_experts, is_linear
from llmsim.model.attention_activations import (
    attention_activation_bytes,
    attention_working_bytes,
    linear_input_bytes,
    norm_input_bytes,
)
from llmsim.model.linear_attention import linear_activation_bytes, linear_working_bytes
from llmsim.model.moe import routing
from llmsim.model.shard import STORED, Shard
from llmsim.model.traffic import FP32, MASK
from llmsim.model.vocabulary import vocab_on_rank

Saved = dict[str, float]
_INDEX = 8  # bytes of a token id or a routing index (int64)
# What each module of selective recomputation makes again, and so does not keep (Megatron-Core, transformer_config.py).
_SHARED = ("shared_fc1_input", "shared_activation_input", "shared_fc2_input")
DISCARDED: Mapping[str, tuple[str, ...]] = {
    "core_attn": ("softmax_output", "softmax_copy", "attention_dropout_mask", "attention_dropout_output"),
    "layernorm": ("qkv_input", "down_input", "fc1_input", "router_input", "shared_fc1_input"),
    "mla_up_proj": ("q_up_input", "kv_up_input", "q_absorb_input", "query", "key", "value"),
    "mlp": ("activation_input", "fc2_input"),
    "moe": (
        *("router_scores", "routing_indices", "combine_input", *_SHARED),
        *("experts_fc1_input", "experts_clamp_input", "experts_activation_input", "experts_fc2_input"),
    ),
    "moe_act": ("experts_fc2_input",),
    "shared_experts": _SHARED,
}


def layer_activation_bytes(arch: Architecture, shard: Shard, kind: LayerKind = "dense") -> Saved:
    """Bytes that one layer keeps on one rank for one micro-batch, by name; those that are zero are left out."""
    if shard.recompute == "full":
        return {"layer_input": shard.local_tokens * arch.hidden * shard.element}
    saved = _everything(arch, shard, kind)
    if shard.recompute == "selective":
        gone = {name for module in shard.modules for name in DISCARDED[module]}
        if "mlp" in shard.modules and "fc1_input" in saved:
            saved["fc1_input"] = shard.local_tokens * arch.hidden * shard.element  # not converted, not gathered
        saved = {name: size for name, size in saved.items() if name not in gone}
    return saved


def recompute_buffer_bytes(arch: Architecture, shard: Shard, kind: LayerKind = "dense") -> float:
    """Bytes that exist only while one layer is recomputed and run backward; 0 without recomputation."""
    saved = _everything(arch, shard, kind)
    return sum(saved.values()) - sum(layer_activation_bytes(arch, shard, kind).values())


def _everything(arch: Architecture, shard: Shard, kind: LayerKind) -> Saved:
    stream = shard.local_tokens * arch.hidden
    normed = norm_input_bytes(arch, shard, stream)
    mask = stream * MASK * shard.dropout
    shared = arch.parallel_block and arch.norms_per_layer == 1
    attention = linear_activation_bytes(arch, shard) if is_linear(kind) else attention_activation_bytes(arch, shard)
    saved: Saved = {"norm1_input": normed, **attention}
    if not (arch.parallel_block and kind == "dense"):
        saved["dropout_mask1"] = mask
    if not shared or has_experts(kind):
        saved["norm2_input"] = normed
    if arch.norms_per_layer >= 4:
        saved["post_norm_inputs"] = 2 * normed
    saved |= _moe(arch, shard) if has_experts(kind) else _mlp(arch, shard, arch.ffn_hidden, "", not shared)
    saved["dropout_mask2"] = mask
    return {name: size for name, size in saved.items() if size}


def _mlp(arch: Architecture, shard: Shard, width: int, prefix: str, own_input: bool) -> Saved:
    """`own_input` false: the first linear reads a tensor that another one has kept."""
    local = width / shard.tp
    kept = _activation(arch, shard, shard.tokens, local)
    return {
        f"{prefix}fc1_input": linear_input_bytes(shard, arch.hidden, sharded=False) * own_input,
        f"{prefix}activation_input": kept,
        f"{prefix}fc2_input": linear_input_bytes(shard, local, sharded=True),
    }


def _activation(arch: Architecture, shard: Shard, rows: float, width: float) -> float:
    """GELU keeps its input; a gated activation keeps gate and up, and eagerly the activated gate as well.

    `activation_input` is the format in which they are kept (Megatron-Core's `activation_func_fp8_input_store`).
    """
    copies = arch.mlp_matrices - 1
    if arch.gated_mlp and not shard.fused("swiglu"):
        copies += 1
    size = STORED[shard.activation_input] if shard.activation_input else shard.element
    return rows * width * copies * size


def _moe(arch: Architecture, shard: Shard) -> Saved:
    moe, r, e = arch.moe, routing(arch, shard), shard.element
    assert moe is not None
    linear = shard.operand
    saved = {
        "router_input": r.rows * arch.hidden * e,
        "router_scores": 2.0 * r.rows * moe.experts * FP32,
        "routing_indices": r.routed * _INDEX,
        "experts_fc1_input": r.gathered * arch.hidden * linear,
        "experts_activation_input": _activation(arch, shard, r.gathered, r.ffn_hidden),
        "experts_fc2_input": r.gathered * r.ffn_hidden * linear,
        # The weighted sum keeps each copy for the gradient of its weight; DeepEP's combine only adds up.
        "combine_input": r.routed * arch.hidden * e * (shard.dispatch == "all_to_all"),
    }
    if arch.clamped_glu and shard.expert_kernels == "separate":  # before and after the clamp
        saved["experts_clamp_input"] = saved["experts_activation_input"]
    if moe.shared_ffn_hidden:
        own = shard.narrow  # in 16 bits the shared expert reads the very tensor that the router keeps
        saved |= _mlp(arch, shard, moe.shared_ffn_hidden, "shared_", own)
    return saved


def embedding_activation_bytes(arch: Architecture, shard: Shard) -> Saved:
    """Bytes kept by the embedding: token ids and the dropout mask (and the input of BLOOM's norm)."""
    stream = shard.local_tokens * arch.hidden
    saved = {
        "token_ids": shard.tokens * _INDEX,
        "dropout_mask": stream * MASK * shard.dropout,
        "embedding_norm_input": norm_input_bytes(arch, shard, stream) * arch.embedding_norm,
    }
    return {name: size for name, size in saved.items() if size}


def logits_bytes(arch: Architecture, shard: Shard) -> float:
    """The logits kept for the loss: fp32 softmax, or with a fused loss the gradient in place of 16-bit logits.

    In chunks none are kept: each chunk goes backward at once, and the gradient of the head's input takes the place of
    the input (Hsu et al. 2024, arXiv 2410.10989, section 3.2).
    """
    return 0.0 if shard.loss_chunks > 1 else _logits(arch, shard)


def _logits(arch: Architecture, shard: Shard) -> float:
    size = shard.element if shard.fused("cross_entropy") else FP32
    return shard.tokens * vocab_on_rank(arch, shard) * size


def head_activation_bytes(arch: Architecture, shard: Shard) -> Saved:
    """Bytes kept by final norm, output layer and loss: 4sbh/t·(1 + v/h) with fp32 logits (Korthikanti, section 4.3)."""
    stream = shard.local_tokens * arch.hidden
    saved = {
        "final_norm_input": norm_input_bytes(arch, shard, stream) * arch.final_norm,
        "logits_input": stream * shard.element,
        "logits": logits_bytes(arch, shard),
    }
    return {name: size for name, size in saved.items() if size}


def head_transient_bytes(arch: Architecture, shard: Shard) -> float:
    """Working memory of the head beyond what it keeps: its input and its gradient, and copies of the logits.

    An unfused loss has three fp32 copies at its highest point: PyTorch's the logarithms, their gradient and that of the
    logits; Megatron's the logits, those less their maximum and the exponentials.
    """
    e, tokens = shard.element, shard.tokens
    beside = 0.0 if shard.fused("cross_entropy") else tokens * vocab_on_rank(arch, shard) * _loss_copies(shard)
    if shard.loss_chunks > 1:
        beside = (beside + _logits(arch, shard)) / shard.loss_chunks
    return beside + tokens * arch.hidden * e * (2 if shard.split_sequence else 1)


def _loss_copies(shard: Shard) -> int:
    """Bytes a logit beside what an unfused loss keeps: two fp32 copies; overwriting them, the 16-bit logits only."""
    if shard.fused("loss_in_place"):
        return shard.element % FP32
    return 2 * FP32


def peak_transient_bytes(arch: Architecture, shard: Shard, kind: LayerKind = "dense") -> float:
    """Largest working set of one layer's backward, beyond what is kept and what is recomputed.

    The maximum over its moments of live gradients, gathered inputs and scratch, plus the gradient of the residual
    stream, which lives throughout.
    """
    stream = shard.local_tokens * arch.hidden * shard.element
    return stream + max(_moments(arch, shard, kind).values())


def _moments(arch: Architecture, shard: Shard, kind: LayerKind) -> Mapping[str, float]:
    e, tokens, h = shard.element, shard.tokens, arch.hidden
    whole = tokens * h * e
    gathered = whole if shard.split_sequence and shard.regather else 0.0
    branch = shard.local_tokens * h * e  # gradient at the sublayer's output, after dropout
    dqkv, dout, scratch = (linear_working_bytes if is_linear(kind) else attention_working_bytes)(arch, shard)
    moments = {
        "attention_core": dout + dqkv + scratch,
        "qkv": dqkv + gathered + whole,
        "proj": branch + gathered + dout,
    }
    experts = has_experts(kind)
    if experts:
        r = routing(arch, shard)
        rows, width, routed = r.gathered, r.ffn_hidden, r.routed * h * e
        moments["combine"] = branch + routed + rows * h * e
        moments["dispatch"] = rows * h * e + routed
    else:
        rows, width = tokens, arch.ffn_hidden / shard.tp
        moments["fc1_input"] = rows * width * (arch.mlp_matrices - 1) * e + gathered + whole
    inner = rows * width * e
    outer = rows * h * e
    up = inner * (arch.mlp_matrices - 1)
    moments["fc2"] = branch + (outer if experts else gathered) + inner
    moments["activation"] = inner + up
    moments["fc1"] = up + outer
    if not (shard.accumulate and shard.fused("grad_accumulation")):
        # A weight gradient of its own, before it is added to the buffer or reduced.
        per_expert = r.experts if experts else 1
        moments["fc1"] += per_expert * h * width * (arch.mlp_matrices - 1) * e
        moments["qkv"] += dqkv / tokens * h
    return moments
