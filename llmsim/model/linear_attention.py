"""The linear-attention sublayer on one rank (a gated delta net): its operators, FLOPs, and what it keeps.

Yang et al. 2024 (arXiv 2412.06464), section 3.3 and its chunkwise form (2406.06484), as flash-linear-attention runs it
and Qwen3-Next has it: sequences in chunks of 64, within which tokens meet as in attention, and from chunk to chunk a
state of key × value a head. No kernel has the FLOPs a byte to be bound by anything but memory on any GPU of the
catalogue (some 35 FLOPs a byte at a width of 128), so each is its traffic. Tensor parallelism splits heads.
"""

from math import ceil

from llmsim.model import traffic
from llmsim.model.architecture import Architecture
from llmsim.model.exchange import column_entry, row_exit, whole
from llmsim.model.operators import Linear, Operator, elementwise
from llmsim.model.shard import Shard
from llmsim.model.sublayers import LinearAttention
from llmsim.model.work import MemoryBound

CHUNK = 64  # tokens (flash-linear-attention, chunk_gated_delta_rule)
# Forward: cumulative decay, keys by keys, inverse, w and u, states, outputs. Backward: w and u again, states again,
# gradients of values within chunks, of states, of q, k and w, of what the inverse came from, of the decay.
_KERNELS, _GRADIENT_KERNELS = 6, 7


def state_flops(linear: LinearAttention) -> float:
    """Forward FLOPs of one token in the chunkwise delta rule of all heads, the small triangular inverse left out.

    In the state: read by w and by q, written by k. Within a chunk: keys by keys, w, u, q by keys, and by new values.
    """
    k, v = linear.key_head_dim, linear.value_head_dim
    return float(linear.value_heads * (6 * k * v + 2 * CHUNK * (3 * k + 2 * v)))


def projection_flops(linear: LinearAttention, hidden: int) -> float:
    """Forward FLOPs of one token in the input and output projections."""
    return 2.0 * hidden * (linear.input_width + linear.value_width)


def linear_parameters(linear: LinearAttention, hidden: int) -> tuple[int, int]:
    """(split by TP, replicated): matrices, convolution and a decay and a step a head; the gain of the gated norm."""
    matrices = hidden * (linear.input_width + linear.value_width)
    return matrices + linear.mixed_width * linear.convolution + 2 * linear.value_heads, linear.value_head_dim


def linear_chain(arch: Architecture, shard: Shard) -> list[Operator]:
    """Operators from the normed input to the output projection."""
    linear, tokens, e = arch.linear, shard.tokens, shard.element
    assert linear is not None
    width, value = ceil(linear.input_width / shard.tp), ceil(linear.value_width / shard.tp)
    mixed = tokens * linear.mixed_width / shard.tp
    small = tokens * linear.value_heads / shard.tp * 2 * (e + traffic.FP32)
    chain: list[Operator] = [
        Linear(
            "linear_in", whole(tokens), width, arch.hidden, shard, shard.precision,
            cast=traffic.narrow_cast(shard, shard.local_tokens * arch.hidden, fused=True),
            cast_grad=traffic.narrow_cast(shard, tokens * width),
            **column_entry(shard, arch.hidden),
        ),
        # One kernel with its SiLU; backward a second one for the gradient of its weights.
        elementwise("convolution", MemoryBound(2.0 * mixed * e), MemoryBound(3.0 * mixed * e, 2)),
        elementwise("qk_length", *traffic.norm(arch, shard, tokens * 2 * linear.key_width / shard.tp, 1)),
        elementwise("decay", MemoryBound(small, 2), MemoryBound(2 * small, 4)),
    ]  # fmt: skip
    if linear.value_heads > linear.key_heads:  # q and k are repeated for each value head
        chain.append(elementwise("repeat_qk", *traffic.copy(shard, _heads(linear, shard) * 2 * linear.key_head_dim)))
    chain.append(elementwise("delta_rule", *_delta_rule(linear, shard)))
    gated = tokens * value * e
    chain.append(elementwise("gated_norm", MemoryBound(3.0 * gated), MemoryBound(5.0 * gated, 2)))
    chain.append(
        Linear(
            "linear_out", whole(tokens), arch.hidden, value, shard, shard.precision,
            cast=traffic.narrow_cast(shard, tokens * value),
            cast_grad=traffic.narrow_cast(shard, shard.local_tokens * arch.hidden),
            **row_exit(shard, arch.hidden),
        )
    )  # fmt: skip
    return chain


def _heads(linear: LinearAttention, shard: Shard) -> float:
    """Tokens times value heads of one rank and micro-batch."""
    return shard.tokens * linear.value_heads / shard.tp


def _delta_rule(linear: LinearAttention, shard: Shard) -> tuple[MemoryBound, MemoryBound]:
    """Bytes of the kernels, tensor by tensor: q, k, w of key width, v, u, new values, output of value width, the C
    values a token that keys by keys and their inverse have, and a state each chunk. Products as `state_flops`; the
    backward has twice them and makes w, u and states again."""
    e, k, v = shard.element, linear.key_head_dim, linear.value_head_dim
    state = k * v / CHUNK
    forward = e * (7 * k + 6 * v + 2 * CHUNK + 2 * state) + 2 * traffic.FP32 * CHUNK
    backward = e * (18 * k + 15 * v + 2 * CHUNK + 4 * state)
    rows, flops = _heads(linear, shard), shard.tokens / shard.tp * state_flops(linear)
    again = rows * (4 * k * v + 2 * CHUNK * (k + v))
    return (
        MemoryBound(rows * forward, _KERNELS, flops),
        MemoryBound(rows * backward, _GRADIENT_KERNELS, 2 * flops + again),
    )


def linear_activation_bytes(arch: Architecture, shard: Shard) -> dict[str, float]:
    """Bytes that the sublayer keeps: what its products, convolution, norms and the delta rule read again."""
    linear, tokens, e = arch.linear, shard.tokens, shard.element
    assert linear is not None
    mixed, rows = tokens * linear.mixed_width / shard.tp, _heads(linear, shard)
    value = tokens * linear.value_width / shard.tp
    read = shard.local_tokens if shard.regather else tokens  # by the input projection's weight gradient
    return {
        "qkv_input": read * arch.hidden * shard.operand,
        "convolution_before": mixed * e,
        "convolution_after": mixed * e,
        "query_and_key": rows * 2 * linear.key_head_dim * e,
        "decay": rows * 2 * (e + traffic.FP32),
        "inverse": rows * CHUNK * e,
        "output_and_gate": 2 * value * e,
        "proj_input": value * shard.operand,
    }


def linear_working_bytes(arch: Architecture, shard: Shard) -> tuple[float, float, float]:
    """Bytes in the sublayer's backward: gradients of the input projection's output, of the delta rule's, and scratch.

    The scratch is states and their gradients, w, u and new values, and gradients of q, k, w and v.
    """
    linear, tokens, e = arch.linear, shard.tokens, shard.element
    assert linear is not None
    k, v = linear.key_head_dim, linear.value_head_dim
    inside = _heads(linear, shard) * e * (2 * k * v / CHUNK + 4 * k + 3 * v)
    return tokens * linear.input_width / shard.tp * e, tokens * linear.value_width / shard.tp * e, inside


def linear_output_gradients(arch: Architecture, shard: Shard) -> float:
    """Values of the gradients of the outputs of both projections, which weight gradients read."""
    assert arch.linear is not None
    return shard.tokens * arch.linear.input_width / shard.tp + shard.local_tokens * arch.hidden
