"""The attention sublayer on one rank: projections, rotary embedding, core (flash or unfused), context parallelism."""

from dataclasses import dataclass, replace
from math import ceil

from llmsim.model import traffic
from llmsim.model.architecture import Architecture
from llmsim.model.exchange import column_entry, row_exit, whole
from llmsim.model.latent_attention import absorbed_projections, latent_projections
from llmsim.model.operators import HEAD, Fixed, Linear, Operator, elementwise, exchange, rerun
from llmsim.model.shard import Shard
from llmsim.model.sparse_attention import sparse_core
from llmsim.model.work import Attention, Communication, Gemm, MemoryBound, Step


@dataclass(frozen=True, slots=True)
class Core:
    """Shape of the attention core on one rank. `heads` and `kv_heads` are per rank, `positions` per sequence."""

    heads: int
    kv_heads: int
    positions: int  # queries of one sequence
    keys: int  # keys of one sequence that are attended to at once
    qk_dim: int
    v_dim: int
    window: int

    def scores(self, shard: Shard) -> float:
        """Values of the score matrices of one micro-batch."""
        return float(shard.micro_batch) * self.heads * self.positions * self.keys


def attention_core(arch: Architecture, shard: Shard, window: int) -> Core:
    """The core as `cp_kind` lays it out: ulysses trades positions for heads, all_gather brings all keys."""
    heads, kv_heads = arch.heads / shard.tp, shard.kv_heads(arch)
    positions = keys = shard.positions
    if shard.cp > 1 and shard.cp_kind == "ulysses":
        heads, kv_heads = heads / shard.cp, max(1.0, kv_heads / shard.cp)
        positions = keys = shard.seq_len
    elif shard.cp > 1 and shard.cp_kind == "all_gather":
        keys = shard.seq_len
    return Core(ceil(heads), ceil(kv_heads), ceil(positions), ceil(keys), arch.qk_head_dim, arch.v_head_dim, window)


def attention_chain(arch: Architecture, shard: Shard, window: int, exchanged: bool = True) -> list[Operator]:
    """Operators from the normed input to the output projection.

    `exchanged` false leaves out the reduction after the projection (a parallel block has one for both branches).
    """
    if arch.mla:
        chain = (absorbed_projections if arch.indexer else latent_projections)(arch, shard)
    else:
        chain = _projections(arch, shard)
    # Megatron-Core keeps what the down projections give, and makes norms, up projections and rotation again.
    up = [step for step in chain if not (isinstance(step, Linear) and step.name.endswith("_down"))] if arch.mla else []
    if arch.indexer:
        chain += sparse_core(arch, shard)
    else:
        chain += _core_chain(arch, shard, attention_core(arch, shard, window))
    if arch.output_gate:
        gated = shard.tokens * arch.heads * arch.v_head_dim / shard.tp * shard.element
        chain.append(elementwise("output_gate", MemoryBound(3.0 * gated), MemoryBound(5.0 * gated)))
    if arch.mla:
        chain += rerun(shard, "mla_up_proj", up)
    width = ceil(arch.heads * arch.v_head_dim / shard.tp)
    leave = row_exit(shard, arch.hidden) if exchanged else {}
    chain.append(
        Linear(
            "proj", whole(shard.tokens), arch.hidden, width, shard, shard.precision,
            cast=traffic.narrow_cast(shard, shard.tokens * width),
            cast_grad=traffic.narrow_cast(shard, shard.local_tokens * arch.hidden),
            **leave,
        )
    )  # fmt: skip
    return chain


def _projections(arch: Architecture, shard: Shard) -> list[Operator]:
    query = arch.heads / shard.tp * arch.head_dim
    key = shard.kv_heads(arch) * arch.head_dim
    width = ceil(query * (1 + arch.output_gate) + 2 * key)
    chain: list[Operator] = [
        Linear(
            "qkv", whole(shard.tokens), width, arch.hidden, shard, shard.precision,
            cast=traffic.narrow_cast(shard, shard.local_tokens * arch.hidden, fused=True),
            cast_grad=traffic.narrow_cast(shard, shard.tokens * width),
            **column_entry(shard, arch.hidden),
        )
    ]  # fmt: skip
    values = shard.tokens * (query + key)
    if arch.qk_norm:
        chain.append(elementwise("qk_norm", *traffic.norm(arch, shard, values, 1)))
        if arch.qk_norm_over == "width" and shard.tp > 1:
            # Each rank has some of the heads: sums of squares of q and of k, and of their gradients, are added up.
            sums = Communication("all_reduce", "tp", 2.0 * shard.tokens * traffic.FP32)
            chain.append(exchange("qk_norm_sums", sums, sums))
    if arch.position == "rope":
        chain.append(elementwise("rope", *traffic.rope(shard, values)))
    if shard.attention == "flash":
        chain.append(elementwise("qkv_layout", *traffic.qkv_layout(shard, shard.tokens * query, shard.tokens * key)))
    return chain


def _core_chain(arch: Architecture, shard: Shard, core: Core) -> list[Operator]:
    if shard.cp == 1:
        return _core(arch, shard, core)
    e, tokens = shard.element, shard.tokens
    kv = tokens * core.kv_heads * (core.qk_dim + core.v_dim) * e
    if shard.cp_kind == "ring":
        return [_ring_core(arch, shard, core, kv)]
    if shard.cp_kind == "all_gather":
        gather = Communication("all_gather", "cp", kv * shard.cp)
        scatter = Communication("reduce_scatter", "cp", kv * shard.cp)
        # The gathered keys and values are not kept: the backward gathers them again.
        before = Fixed((Step("kv_gather", gather, "cp"),), (Step("dkv_scatter", scatter, "cp"),))
        again = Fixed((), (Step("kv_regather", gather, "cp"),))
        return [before, *_core(arch, shard, core), again]
    heads, kv_heads = core.heads * shard.cp, core.kv_heads * shard.cp
    inputs = tokens * (heads * core.qk_dim + kv_heads * (core.qk_dim + core.v_dim)) * e
    outputs = tokens * heads * core.v_dim * e
    to_heads = Communication("all_to_all", "cp", inputs)
    to_positions = Communication("all_to_all", "cp", outputs)
    return [
        exchange("qkv_to_heads", to_heads, to_heads),
        *_core(arch, shard, core),
        exchange("out_to_positions", to_positions, to_positions),
    ]


def _core(arch: Architecture, shard: Shard, core: Core) -> list[Operator]:
    if shard.attention == "unfused":
        return _unfused_core(arch, shard, core)
    # Under all_gather each rank's share of the causal triangle is balanced: q·keys/2 pairs, as the class counts.
    keys, batch = core.keys, shard.micro_batch
    if core.window and core.positions != core.keys:
        keys = min(keys, (1 if arch.window_chunks else 2) * core.window)
    elif arch.window_chunks and 0 < core.window < keys:
        # Each chunk is a sequence of its own.
        batch, keys = ceil(batch * keys / core.window), core.window
        core = replace(core, positions=keys, keys=keys, window=0)
    forward, backward = (
        Step(name, _flash(arch, shard, core, batch, keys, arch.causal, grad))
        for name, grad in (("attention", False), ("attention_grad", True))
    )
    return [Fixed((forward,), (backward,))]


def _flash(
    arch: Architecture, shard: Shard, core: Core, batch: int, keys: int, causal: bool, backward: bool
) -> Attention:
    window = core.window if core.window and core.window < keys else None
    return Attention(
        batch, core.heads, core.kv_heads, core.positions, keys, core.qk_dim, core.v_dim, causal, backward,
        shard.core_precision, window, shard.flash_version,
    )  # fmt: skip


def _unfused_core(arch: Architecture, shard: Shard, core: Core) -> list[Operator]:
    """Scores, softmax, dropout and context as separate kernels, with the s² matrices in memory.

    Selective recomputation repeats exactly this (Korthikanti et al. 2022, section 5).
    """
    batch, precision = shard.micro_batch * core.heads, shard.core_precision
    q, k, d, v = core.positions, core.keys, core.qk_dim, core.v_dim
    scores = core.scores(shard)
    soft, soft_grad = traffic.softmax(arch, shard, scores)
    drop, drop_grad = traffic.dropout(shard, scores)
    move, move_grad = traffic.copy(shard, shard.tokens * core.heads * v)
    forward = [
        Step("scores", Gemm(q, k, d, batch, precision)),
        Step("softmax", soft),
        Step("attention_dropout", drop),
        Step("context", Gemm(q, v, k, batch, precision)),
        Step("context_layout", move),
    ]
    backward = [
        Step("context_layout_grad", move_grad),
        Step("context_dprobs", Gemm(q, k, v, batch, precision)),
        Step("context_dv", Gemm(k, v, q, batch, precision)),
        Step("attention_dropout_grad", drop_grad),
        Step("softmax_grad", soft_grad),
        Step("scores_dq", Gemm(q, d, k, batch, precision)),
        Step("scores_dk", Gemm(k, d, q, batch, precision)),
    ]
    if not arch.mla:  # the gradients of q, k and v are copied into one tensor; flash kernels write it themselves
        width = core.heads * d + shard.kv_heads(arch) * (d + v)
        backward.append(Step("qkv_layout_grad", traffic.copy(shard, shard.tokens * width)[0]))
    present = (tuple(step for step in steps if step.work is not None) for steps in (forward, backward))
    chain: list[Operator] = [Fixed(*present, recomputed=shard.recomputes("core_attn"))]
    if core.kv_heads < core.heads:
        # Grouped keys and values are repeated for each query head, and their gradients summed.
        repeated = shard.tokens * core.heads * (d + v)
        chain.insert(0, elementwise("repeat_kv", *traffic.copy(shard, repeated)))
    return chain


def _ring_core(arch: Architecture, shard: Shard, core: Core, kv: float) -> Operator:
    """Ring attention (Liu et al. 2023, arXiv 2310.01889) with zigzag positions, so that causal work is balanced.

    The first of cp blocks is the rank's own, a causal square; each other is half a square. The exchange of the
    cp − 1 remote blocks of keys and values (`kv` bytes each) moves what a ring all-gather moves, beside all blocks
    but the last one; the backward sends the gradients along.
    """

    def blocks(name: str, backward: bool) -> list[Step]:
        def remote(count: int) -> Attention:
            keys = ceil(core.keys / 2) if arch.causal else core.keys
            return _flash(arch, shard, core, shard.micro_batch * count, keys, False, backward)

        own = _flash(arch, shard, core, shard.micro_batch, core.keys, arch.causal, backward)
        size = kv * shard.cp * (2 if backward else 1)
        steps = [
            Step(f"{name}_ring", Communication("all_gather", "cp", size), "cp", after=(HEAD,)),
            Step(name, own, after=(HEAD,)),
        ]
        if shard.cp > 2:
            steps.append(Step(f"{name}_remote", remote(shard.cp - 2)))
        steps.append(Step(f"{name}_last", remote(1), after=(0, len(steps) - 1)))
        return steps

    # Partial outputs are rescaled and summed in fp32, one more pass a block.
    values = shard.tokens * core.heads * core.v_dim * (shard.cp - 1)
    merge = MemoryBound(values * (2.0 * traffic.FP32 + shard.element), kernels=shard.cp - 1)
    return Fixed((*blocks("attention", False), Step("merge", merge)), tuple(blocks("attention_grad", True)))
