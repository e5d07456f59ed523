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
from llmsim.model.operators import Linear, Operator, elementwise, exchange
from llmsim.model.shard import Shard
from llmsim.model.work import Communication, MemoryBound, Once

_ROUTER_KERNELS = 6  # softmax or sigmoid, top-k, normalise, mask, histogram, auxiliary loss
_FP8_SCALED = 1.0 + 4 / 128
_ROUTER_BYTES = 2.0 * _ROUTER_KERNELS * traffic.FP32  # read and written once a kernel, in fp32


@dataclass(frozen=True, slots=True)
class Routing:
    """Token counts of one rank and micro-batch (floats: means)."""

    rows: float  # tokens this rank routes
    routed: float  # token copies it sends, top_k a token (or the capacity)
    received: float  # token copies its experts compute
    experts: int  # experts on this rank
    per_expert: int  # rows of each expert's GEMM
    ffn_hidden: int  # width of one expert on this rank

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
    return Routing(
        rows, routed, received, experts, per_expert, ceil(moe.expert_ffn_hidden / shard.expert_split)
    )


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
    scores = MemoryBound(r.rows * moe.experts * _ROUTER_BYTES, _ROUTER_KERNELS)
    chain += [
        Linear("router", whole(r.rows), moe.experts, h, shard, shard.core_precision),
        elementwise("route", scores, scores),
    ]
    if moe.shared_ffn_hidden:
        chain += mlp_chain(
            arch, shard, moe.shared_ffn_hidden, "shared_", entry=not replicated, leave=not replicated
        )
        chain.append(elementwise("shared_sum", traffic.gradient_sum(shard, r.rows, h), None))
    chain += [
        elementwise("permute", *_permute(shard, r, h)),
        *_dispatch(arch, shard, r),
        *_experts(arch, shard, r),
        *reversed(_dispatch(arch, shard, r, back=True)),
        elementwise("unpermute", *_unpermute(shard, r, h)),
    ]
    if replicated:
        chain.append(exchange("moe_exit", Communication("all_reduce", "tp", shard.tokens * h * e), None))
    return chain


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
    if shard.ep > 1 and r.experts > 1:
        chain.append(elementwise(f"{name}_sort", *traffic.copy(shard, r.gathered * h)))
    return chain


def _experts(arch: Architecture, shard: Shard, r: Routing) -> list[Operator]:
    h, width, up = arch.hidden, r.ffn_hidden, r.ffn_hidden * (arch.mlp_matrices - 1)
    return [
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
