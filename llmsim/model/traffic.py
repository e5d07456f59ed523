"""HBM traffic of the memory-bound kernels of a layer, fused or not: bytes read plus written, and launches.

Each function gives (forward, backward) for `rows` tokens of `width` values of `e` bytes. Counts are of tensors that
cannot stay in cache between kernels; a fused kernel reads its inputs once and writes its outputs once.
"""

from llmsim.model.architecture import Architecture
from llmsim.model.shard import Shard
from llmsim.model.work import MemoryBound

Passes = tuple[MemoryBound | None, MemoryBound | None]
MASK = 1  # bytes of one value of a dropout mask
FP32 = 4


def _pair(values: float, forward: tuple[float, int], backward: tuple[float, int]) -> Passes:
    """(forward, backward) from (bytes a value, kernels); None where nothing is moved."""
    return tuple(MemoryBound(values * size, kernels) if kernels else None for size, kernels in (forward, backward))


def norm(arch: Architecture, shard: Shard, rows: float, width: float) -> Passes:
    """LayerNorm or RMSNorm. Backward reads x and dy and writes dx; a second small one reduces the gains' gradients."""
    e = shard.element
    if shard.fused("norm"):
        return _pair(rows * width, (2 * e, 1), (3 * e, 2))
    if arch.norm == "layernorm":  # statistics, normalise, scale and shift
        return _pair(rows * width, (5 * e, 3), (10 * e, 6))
    # The usual eager RMSNorm computes in fp32: cast, square, mean, scale, cast back, gain.
    size = 4 * e + 6 * FP32
    return _pair(rows * width, (size, 6), (2 * size, 12))


def gradient_sum(shard: Shard, rows: float, width: float) -> MemoryBound:
    """Autograd adds the gradient of a branch to that of the residual stream."""
    return MemoryBound(3.0 * rows * width * shard.element)


def residual(shard: Shard, rows: float, width: float, bias: bool) -> Passes:
    """Bias, dropout and residual add after a sublayer. The residual's own gradient passes through for free."""
    e, dropout = shard.element, shard.dropout
    if shard.fused("bias_dropout_residual"):
        forward = (3 * e + MASK * dropout, 1)
    else:
        forward = (3 * e + 2 * e * bias + (2 * e + MASK) * dropout, 1 + bias + dropout)
    backward = ((2 * e + MASK) * dropout + e * bias, int(dropout) + int(bias))
    return _pair(rows * width, forward, backward)


def activation(arch: Architecture, shard: Shard, rows: float, width: float) -> Passes:
    """GELU (with bias) or the gated product of `width` outputs."""
    e = shard.element
    if arch.gated_mlp:
        if shard.fused("swiglu"):
            return _pair(rows * width, (3 * e, 1), (5 * e, 1))
        # Backward the gradients of gate and up are concatenated once more.
        return _pair(rows * width, (5 * e, 2), (13 * e, 4))
    bias = arch.mlp_bias
    if shard.fused("bias_activation"):
        return _pair(rows * width, (2 * e, 1), (3 * e + e * bias, 1 + bias))
    return _pair(rows * width, (2 * e + 2 * e * bias, 1 + bias), (3 * e + e * bias, 1 + bias))


def clamp(shard: Shard, values: float) -> Passes:
    """Gate and up clamped each on its own and joined again (Megatron-Core, fused_bias_geglu.py: clamp, clamp, cat).

    Backward each clamp reads its input and gradient and writes a gradient; the two are joined.
    """
    e = shard.element
    return _pair(values, (4 * e, 3), (5 * e, 3))


def expert_bias(shard: Shard, values: float, experts: int, probability: int) -> Passes:
    """Each expert's bias times its tokens' probabilities, added to its outputs, which are then joined
    (Megatron-Core, TEGroupedMLP._apply_bias); `probability`: bytes of a probability, in which products and sums are.

    Forward: product written; sum of output and product; join; conversion back where wider. Backward: the same
    conversions, and for bias and probabilities each a product and a reduction.
    """
    e, p = shard.element, probability
    cast = e + p if p > e else 0
    forward = p + (e + p + p) + 2 * p + cast
    backward = 2 * cast + 2 * (p + p + p)
    return _pair(values, (forward, 2 * experts + 1 + (cast > 0)), (backward, 5 * experts + (cast > 0)))


def rope(shard: Shard, values: float) -> Passes:
    """Rotary embedding of `values` of q and k. Unfused, each of the two: negate, concatenate, two products, sum."""
    e = shard.element
    if shard.fused("rope"):
        return _pair(values, (2 * e, 1), (2 * e, 1))
    return _pair(values, (10 * e, 10), (10 * e, 10))


def softmax(arch: Architecture, shard: Shard, scores: float) -> Passes:
    """Scale, mask and softmax of `scores` attention scores. A fused causal kernel reads only the lower triangle."""
    e = shard.element
    if shard.fused("softmax"):
        return _pair(scores, (1.5 * e, 1), (2 * e, 1)) if arch.causal else _pair(scores, (2 * e, 1), (3 * e, 1))
    casts = 2 * (e != FP32)
    # In fp32, eager: scale, masked fill, softmax (backward reads two tensors), between casts.
    conversion = casts * (e + FP32)
    forward = conversion + 6 * FP32 + MASK
    backward = conversion + 7 * FP32 + MASK
    return _pair(scores, (forward, 3 + casts), (backward, 3 + casts))


def dropout(shard: Shard, values: float) -> Passes:
    """A dropout of its own kernel, keeping its mask."""
    size = 2 * shard.element + MASK
    return _pair(values, (size, 1), (size, 1)) if shard.dropout else (None, None)


def qkv_layout(shard: Shard, query: float, key: float) -> Passes:
    """Copies on the way to flash attention where tensors lie sequence first: q, k and v transposed, k and v joined and
    transposed again. `query`, `key`: values of q, and of k (v as many)."""
    if shard.fused("qkv_layout"):
        return None, None
    return copy(shard, query + 6 * key, 3)


def copy(shard: Shard, values: float, kernels: int = 1) -> Passes:
    """A layout change: read and written once, likewise its gradient."""
    return _pair(values, (2 * shard.element, kernels), (2 * shard.element, kernels))


def narrow_cast(shard: Shard, values: float, fused: bool = False) -> float:
    """Bytes to quantise a GEMM operand and store its transpose, which the weight gradient multiplies (0 in 16 bits).

    `fused`: the producer (norm, activation) writes the narrow operand itself, which leaves the transpose. NVFP4 reads
    once more, for the tensor's largest value (NVIDIA 2025, arXiv 2509.25149, section 4).
    """
    if not shard.narrow:
        return 0.0
    again = shard.element if shard.precision == "nvfp4" else 0
    return values * (shard.operand + again if fused else shard.element + again + 2 * shard.operand)
