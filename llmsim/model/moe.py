"""The mixture-of-experts sublayer on one rank: router, dispatch, grouped expert GEMMs, combine, shared experts.

Load is balanced up to `shard.imbalance`; with a capacity factor each expert takes its padded capacity. Experts are
spread over ep ranks; `shard.expert_split` ranks of the tensor group share each expert's matrices:
- 1 with sequence parallelism (default): each rank routes its own 1/tp of the tokens, experts are not split;
- tp with sequence parallelism: dispatched tokens are all-gathered over tp and outputs reduce-scattered;
- tp without: all tp ranks route the same tokens, and one all-reduce of the combined output ends the sublayer.
"""

from dataclasses import dataclass, replace
from math import ceil

from llmsim.model import traffic
from llmsim.model.architecture import Architecture
from llmsim.model.exchange import whole
from llmsim.model.mlp import mlp_chain
from llmsim.model.operators import Fixed, Linear, Operator, Rerun, elementwise, exchange, rerun
from llmsim.model.shard import Shard
from llmsim.model.work import Communication, HostWait, MemoryBound, Once, Step

# Kernels from scores to routing, fused as far as Transformer Engine does; with DeepEP, preprocessing included
# (NVIDIA 2025, Megatron-LM, deepseek-v3-gb200-optimization, sections 2.1.4 and 2.2.1).
_ROUTER_KERNELS = {"all_to_all": 31, "deduplicated": 17}
_ROUTER_GRAD_KERNELS = 6
_ROUTER_PASSES = 6  # over all scores, read and written in fp32: softmax, top-k, normalise, mask, histogram, loss
_FP8_SCALED = 1.0 + 4 / 128


@dataclass(frozen=True, slots=True)
class Routing:
    """Token counts of one rank and micro-batch (floats: means)."""

    rows: float  # tokens this rank routes
    routed: float  # token copies it sends, top_k a token (or the capacity)
    received: float  # token copies its experts compute
    experts: int  # experts on this rank
    per_expert: int  # rows of each expert's GEMM
    ffn_hidden: int  # width of one expert on this rank
    arrived: float  # tokens of which there are copies

    @property
    def gathered(self) -> float:
        return float(self.experts * self.per_expert)


def routing(arch: Architecture, shard: Shard) -> Routing:
    """How many tokens go where. Raises `ModelError` nowhere: counts that do not divide are rounded up."""
    moe = arch.moe
    assert moe is not None
    rows = shard.local_tokens
    factor = moe.capacity_factor or 1.0
    routed = rows * moe.top_k * factor
    imbalance = 1.0 if moe.capacity_factor else shard.imbalance
    experts = ceil(moe.experts / shard.ep)
    gathered = shard.expert_split if shard.split_sequence else 1
    received = routed * imbalance * experts * shard.ep / moe.experts
    per_expert = whole(received * gathered / experts)
    # Of m equally likely ranks, k copies meet m·(1 − (1 − 1/m)^k).
    met = shard.ep * (1.0 - (1.0 - 1.0 / shard.ep) ** moe.top_k)
    arrived = min(rows * met * imbalance, received) * gathered
    width = ceil(moe.expert_ffn_hidden / shard.expert_split)
    return Routing(rows, routed, received, experts, per_expert, width, arrived)


def moe_chain(arch: Architecture, shard: Shard) -> list[Operator]:
    """Operators from the normed input to the combined output of routed and shared experts."""
    moe = arch.moe
    assert moe is not None
    r, h, e = routing(arch, shard), arch.hidden, shard.element
    chain: list[Operator] = []
    replicated = shard.tp > 1 and not shard.split_sequence
    if replicated:
        # Every rank computes a slice of each expert for the same tokens: the input's gradients are summed.
        chain.append(exchange("moe_entry", None, Communication("all_reduce", "tp", shard.tokens * h * e)))
    scores = 2.0 * _ROUTER_PASSES * traffic.FP32 * r.rows * moe.experts
    routed = MemoryBound(scores, _ROUTER_KERNELS[shard.dispatch])
    chain += [
        Linear("router", whole(r.rows), moe.experts, h, shard, shard.core_precision),
        elementwise("route", routed, MemoryBound(scores, _ROUTER_GRAD_KERNELS)),
    ]
    if moe.shared_ffn_hidden:
        chain += mlp_chain(arch, shard, moe.shared_ffn_hidden, "shared_", entry=not replicated, leave=not replicated)
        chain.append(elementwise("shared_sum", traffic.gradient_sum(shard, r.rows, h), None))
    experts = _experts(arch, shard, r)
    there, back = _dispatch(arch, shard, r), list(reversed(_dispatch(arch, shard, r, back=True)))
    if shard.dispatch == "deduplicated" and shard.ep > 1:
        # Tokens travel as they are and are copied where they arrive; likewise their outputs are added up there.
        copied = MemoryBound((r.arrived + r.gathered) * h * e)
        experts = [elementwise("permute", copied, copied), *experts, elementwise("unpermute", copied, copied)]
        chain += [*there, *experts, *back]
    else:
        chain += [
            elementwise("permute", *_permute(shard, r, h)),
            *there, *experts, *back,
            elementwise("unpermute", *_unpermute(shard, r, h)),
        ]  # fmt: skip
    if replicated:
        chain.append(exchange("moe_exit", Communication("all_reduce", "tp", shard.tokens * h * e), None))
    if shard.recomputes("moe"):  # the parts of it that are recomputed too are made again only once
        chain = [operator for operator in chain if not isinstance(operator, Rerun)]
    return [*chain, *rerun(shard, "moe", chain)]


def _dispatch(arch: Architecture, shard: Shard, r: Routing, back: bool = False) -> list[Operator]:
    """To the experts' ranks: all-to-all over ep, all-gather over tp, sort by expert; `back`: their inverses."""
    h, e = arch.hidden, shard.element
    name = "combine" if back else "dispatch"
    chain: list[Operator] = []
    if shard.ep > 1:
        once = None
        if shard.dispatch == "deduplicated":
            moe = arch.moe
            once = Once(moe.top_k, moe.top_groups if moe.groups > 1 else 0)
        send = Communication("all_to_all", "ep", r.routed * h * e, once)
        # DeepSeek-V3 (arXiv 2412.19437, section 3.3.3): fp8 to the experts, a scale for 128 values; outputs in 16 bits.
        there = replace(send, size=r.routed * h * _FP8_SCALED) if shard.dispatch_fp8 else send
        # What goes to the experts: tokens in the forward, gradients of their outputs in the backward.
        chain.append(exchange(name, send, there) if back else exchange(name, there, send))
    if shard.split_sequence and shard.expert_split > 1:
        size = r.received * shard.expert_split * h * e
        gather = Communication("all_gather", "tp", size)
        scatter = Communication("reduce_scatter", "tp", size)
        chain.append(exchange(f"{name}_tp", *((scatter, gather) if back else (gather, scatter))))
    if shard.dispatch == "all_to_all":
        if shard.ep > 1 and r.experts > 1:
            chain.append(elementwise(f"{name}_sort", *traffic.copy(shard, r.gathered * h)))
        if shard.narrow and arch.moe and arch.moe.capacity_factor is None:
            # Narrow products need rows in multiples of 16 or 32: Megatron-Core copies tokens into padded buffers and
            # back (TEGroupedMLP); DeepEP's and HybridEP's permutations pad as they copy.
            chain.append(elementwise(f"{name}_pad", *traffic.copy(shard, r.gathered * h)))
    return chain


def _experts(arch: Architecture, shard: Shard, r: Routing) -> list[Operator]:
    return _fused_experts(arch, shard, r) if shard.expert_kernels == "fused" else _separate_experts(arch, shard, r)


def _fused_experts(arch: Architecture, shard: Shard, r: Routing) -> list[Operator]:
    """One kernel a product for all experts; activation, bias and the conversion of what is written are in it.

    NVIDIA 2026, "Boosting MoE Training Throughput with Advanced Fusion Kernels": only what arrives is converted by a
    kernel of its own. The counts of tokens stay on the GPU.
    """
    h, width, up = arch.hidden, r.ffn_hidden, r.ffn_hidden * (arch.mlp_matrices - 1)
    rows = 16 * ceil(r.per_expert / 16)
    cast = traffic.narrow_cast(shard, r.gathered * h)
    return [
        Linear("experts_fc1", rows, up, h, shard, shard.precision, r.experts, cast=cast),
        Linear("experts_fc2", rows, h, width, shard, shard.precision, r.experts, cast_grad=cast),
    ]


def _separate_experts(arch: Architecture, shard: Shard, r: Routing) -> list[Operator]:
    h, width, up = arch.hidden, r.ffn_hidden, r.ffn_hidden * (arch.mlp_matrices - 1)
    chain: list[Operator] = [
        Linear(
            "experts_fc1", r.per_expert, up, h, shard, shard.precision, r.experts, True,
            cast=traffic.narrow_cast(shard, r.gathered * h),
            cast_grad=traffic.narrow_cast(shard, r.gathered * up, fused=True),
        ),
        elementwise("experts_activation", *traffic.activation(arch, shard, r.gathered, width)),
        Linear(
            "experts_fc2", r.per_expert, h, width, shard, shard.precision, r.experts, True,
            cast=traffic.narrow_cast(shard, r.gathered * width, fused=True),
            cast_grad=traffic.narrow_cast(shard, r.gathered * h),
        ),
    ]  # fmt: skip
    chain += rerun(shard, "moe_act", chain[1:2], chain[2:])
    if arch.clamped_glu:
        chain.insert(1, elementwise("experts_clamp", *traffic.clamp(shard, r.gathered * up)))
    if arch.mlp_bias:
        probabilities = shard.element if shard.dispatch == "all_to_all" else traffic.FP32
        passes = traffic.expert_bias(shard, r.gathered * h, r.experts, probabilities)
        chain.append(elementwise("experts_bias", *passes))
    forward, backward = shard.host_experts
    if (forward or backward) and arch.moe and arch.moe.capacity_factor is None:
        wait = [Step("experts_launch", HostWait(seconds)) for seconds in shard.host_experts]
        chain = [Fixed(forward=(wait[0],)), *chain, Fixed(backward=(wait[1],))]
    return chain


def _permute(shard: Shard, r: Routing, h: int) -> tuple[MemoryBound, MemoryBound]:
    """Copies of each token in order of their experts; unfused, the order is sorted out by kernels of its own."""
    size = (r.rows + r.routed) * h * shard.element
    kernels = 2 if shard.fused("moe_permute") else 5
    return MemoryBound(size, kernels), MemoryBound(size, 1)


def _unpermute(shard: Shard, r: Routing, h: int) -> tuple[MemoryBound, MemoryBound]:
    """The weighted sum of each token's copies. Its backward reads the copies for the gradients of the weights."""
    e = shard.element
    if shard.fused("moe_permute"):
        return MemoryBound((r.routed + r.rows) * h * e), MemoryBound((2 * r.routed + r.rows) * h * e)
    # Product with the weights, zero fill, scatter-add; backward: gather, two products, a reduction.
    return MemoryBound((4 * r.routed + 2 * r.rows) * h * e, 3), MemoryBound((7 * r.routed + r.rows) * h * e, 4)
