"""What the attention sublayer keeps for its backward on one rank, and what that works in: bytes by name."""

from llmsim.model.architecture import Architecture
from llmsim.model.attention import attention_core
from llmsim.model.shard import STORED, Shard
from llmsim.model.sparse_attention import sparse_activation_bytes, sparse_working_bytes
from llmsim.model.traffic import FP32, MASK


def norm_input_bytes(arch: Architecture, shard: Shard, values: float) -> float:
    """What a norm keeps: its input; eager LayerNorm centred and normalised values, eager RMSNorm an fp32 copy too."""
    e = shard.element
    if shard.fused("norm"):
        return values * e
    return values * (2 * e if arch.norm == "layernorm" else FP32 + e)


def linear_input_bytes(shard: Shard, width: float, sharded: bool) -> float:
    """The input of a linear layer, kept for its weight gradient: in fp8 when the GEMM is.

    `sharded`: `width` is this rank's part already; else the input is whole on each rank, or 1/tp of its tokens with
    sequence parallelism (all of them where what was gathered is kept).
    """
    tokens = shard.tokens if sharded or not shard.regather else shard.local_tokens
    return tokens * width * shard.operand


def attention_activation_bytes(arch: Architecture, shard: Shard) -> dict[str, float]:
    """Bytes that the sublayer keeps on one rank for one micro-batch, by name, with the projections' inputs."""
    e, tokens, heads = shard.element, shard.tokens, arch.heads / shard.tp
    core = attention_core(arch, shard, 0)
    query, value = heads * arch.qk_head_dim, heads * arch.v_head_dim
    # Unfused attention repeats grouped keys and values for each query head; flash reads them in place.
    kv_heads = heads if shard.attention == "unfused" else shard.kv_heads(arch)
    key, head_value = kv_heads * arch.qk_head_dim, kv_heads * arch.v_head_dim
    saved: dict[str, float] = {}
    if arch.mla:
        mla = arch.mla
        saved["down_input"] = linear_input_bytes(shard, arch.hidden, sharded=False)
        for name, rank in (("q", mla.q_lora_rank), ("kv", mla.kv_lora_rank)):
            saved[f"{name}_norm_input"] = norm_input_bytes(arch, shard, shard.local_tokens * rank)
            saved[f"{name}_up_input"] = linear_input_bytes(shard, rank, sharded=False)
        if arch.indexer:
            del saved["kv_up_input"]  # nothing is expanded: the latent is the key
            saved |= sparse_activation_bytes(arch, shard)
            saved["proj_input"] = linear_input_bytes(shard, value, sharded=True)
            return saved
    else:
        saved["qkv_input"] = linear_input_bytes(shard, arch.hidden, sharded=False)
        if arch.qk_norm:
            width = query + shard.kv_heads(arch) * arch.head_dim
            saved["qk_norm_inputs"] = norm_input_bytes(arch, shard, tokens * width)
    saved |= {"query": tokens * query * e, "key": tokens * key * e, "value": tokens * head_value * e}
    if shard.attention == "flash":
        # The core keeps its output, which is the projection's input unless that is cast to fp8.
        own = arch.output_gate or (shard.narrow and shard.attention_output is None)
        saved["attention_output"] = tokens * value * e if own else 0.0
        saved["logsumexp"] = tokens * heads * FP32
    else:
        scores = core.scores(shard)
        if shard.fused("softmax"):
            saved["softmax_output"] = scores * e
        else:
            # Eager softmax keeps its fp32 output; without dropout the cast one is the context product's input.
            saved["softmax_output"] = scores * FP32
            saved["softmax_copy"] = scores * e * (e != FP32 and not shard.dropout)
        saved["attention_dropout_mask"] = scores * MASK * shard.dropout
        saved["attention_dropout_output"] = scores * e * shard.dropout
    # The gate and, where the core keeps no output of its own, what it multiplies.
    saved["output_gate"] = tokens * value * (1 + (shard.attention != "flash")) * e * arch.output_gate
    saved["proj_input"] = linear_input_bytes(shard, value, sharded=True)
    if shard.attention == "flash" and shard.attention_output and not arch.output_gate:
        # One copy for the core and the projection.
        saved["proj_input"] = tokens * value * STORED[shard.attention_output]
    return saved


def attention_working_bytes(arch: Architecture, shard: Shard) -> tuple[float, float, float]:
    """Bytes of the gradients of q, k and v, of the gradient of the core's output, and of the core's scratch."""
    if arch.indexer:
        return sparse_working_bytes(arch, shard)
    e, tokens = shard.element, shard.tokens
    core = attention_core(arch, shard, 0)
    heads, kv_heads = arch.heads / shard.tp, shard.kv_heads(arch)
    query, value = heads * arch.qk_head_dim * (1 + arch.output_gate), heads * arch.v_head_dim
    dqkv = tokens * (query + kv_heads * (arch.qk_head_dim + arch.v_head_dim)) * e
    if shard.attention == "flash":
        scratch = tokens * heads * (arch.qk_head_dim * FP32 + FP32)  # fp32 accumulator of dq, row sums
    else:
        scratch = 2.0 * core.scores(shard) * (e if shard.fused("softmax") else FP32)
    if shard.cp > 1 and shard.cp_kind != "ulysses":
        # Remote keys and values and their gradients: one block each in a ring, all of them when gathered.
        blocks = 2 if shard.cp_kind == "ring" else shard.cp
        scratch += 2.0 * blocks * tokens * kv_heads * (arch.qk_head_dim + arch.v_head_dim) * e
    return dqkv, tokens * value * e, scratch
