"""The projections of latent attention (MLA) on one rank: low-rank q and kv, expanded for each head or absorbed into q.

Expanded is how dense attention trains; absorbed, all heads read one latent key (DeepSeek-V2, arXiv 2405.04434, section
2.1.2), as sparse attention needs it.
"""

from math import ceil

from llmsim.model import traffic
from llmsim.model.architecture import Architecture
from llmsim.model.exchange import column_entry, whole
from llmsim.model.operators import Linear, Operator, elementwise, exchange
from llmsim.model.shard import Shard
from llmsim.model.work import Communication


def _down(arch: Architecture, shard: Shard, name: str, rank: int, extra: int) -> list[Operator]:
    """The down projection with its norm. It is not split: each TP rank makes it for the tokens it holds."""
    local = shard.local_tokens
    return [
        Linear(
            f"{name}_down", whole(local), rank + extra, arch.hidden, shard, shard.precision,
            cast=traffic.narrow_cast(shard, local * arch.hidden, fused=True),
            cast_grad=traffic.narrow_cast(shard, local * (rank + extra)),
        ),
        elementwise(f"{name}_norm", *traffic.norm(arch, shard, local, rank)),
    ]  # fmt: skip


def _up(shard: Shard, name: str, rank: int, extra: int, up: float) -> Linear:
    return Linear(
        f"{name}_up", whole(shard.tokens), ceil(up), rank, shard, shard.precision,
        cast=traffic.narrow_cast(shard, shard.local_tokens * rank, fused=True),
        cast_grad=traffic.narrow_cast(shard, shard.tokens * up),
        **column_entry(shard, rank + extra),
    )  # fmt: skip


def _query(arch: Architecture, shard: Shard) -> list[Operator]:
    mla, tokens, local = arch.mla, shard.tokens, shard.local_tokens
    assert mla is not None
    query = arch.heads / shard.tp * arch.qk_head_dim
    if mla.q_lora_rank:
        return [*_down(arch, shard, "q", mla.q_lora_rank, 0), _up(shard, "q", mla.q_lora_rank, 0, query)]
    return [
        Linear(
            "q", whole(tokens), ceil(query), arch.hidden, shard, shard.precision,
            cast=traffic.narrow_cast(shard, local * arch.hidden, fused=True),
            cast_grad=traffic.narrow_cast(shard, tokens * query),
            **column_entry(shard, arch.hidden),
        )
    ]  # fmt: skip


def _rope(arch: Architecture, shard: Shard) -> Operator:
    """Of the rotated part of each head of q, and of the one of k that all heads share."""
    assert arch.mla is not None
    rotated = shard.tokens * arch.mla.qk_rope_head_dim * (arch.heads / shard.tp + 1)
    return elementwise("rope", *traffic.rope(shard, rotated))


def latent_projections(arch: Architecture, shard: Shard) -> list[Operator]:
    """Low-rank q and kv, expanded to every head."""
    mla, heads = arch.mla, arch.heads / shard.tp
    assert mla is not None
    rank, rotated = mla.kv_lora_rank, mla.qk_rope_head_dim
    return [
        *_query(arch, shard),
        *_down(arch, shard, "kv", rank, rotated),
        _up(shard, "kv", rank, rotated, heads * (mla.qk_nope_head_dim + mla.v_head_dim)),
        _rope(arch, shard),
        # The rotated key part is copied beside each head's own part.
        elementwise("expand_k", *traffic.copy(shard, shard.tokens * heads * arch.qk_head_dim)),
    ]


def absorbed_projections(arch: Architecture, shard: Shard) -> list[Operator]:
    """Low-rank q and kv, with the keys' up projection applied to q: a head's query is as wide as the latent key."""
    mla, heads = arch.mla, ceil(arch.heads / shard.tp)
    assert mla is not None
    rank, rotated = mla.kv_lora_rank, mla.qk_rope_head_dim
    latent = shard.tokens * (rank + rotated) * shard.element
    chain = [*_query(arch, shard), *_down(arch, shard, "kv", rank, rotated)]
    if shard.split_sequence:
        ends = (Communication("all_gather", "tp", latent), Communication("reduce_scatter", "tp", latent))
        chain.append(exchange("kv_latent", *ends))
    elif shard.tp > 1:
        chain.append(exchange("kv_latent", None, Communication("all_reduce", "tp", latent)))
    return [
        *chain,
        _rope(arch, shard),
        Linear("q_absorb", whole(shard.tokens), rank, mla.qk_nope_head_dim, shard, shard.core_precision, heads),
    ]


def absorbed_values(arch: Architecture, shard: Shard) -> Operator:
    """The values' up projection, applied to what the core gives: from the latent's width to a head's."""
    mla, heads = arch.mla, ceil(arch.heads / shard.tp)
    assert mla is not None
    rows, precision = whole(shard.tokens), shard.core_precision
    return Linear("value_absorb", rows, mla.v_head_dim, mla.kv_lora_rank, shard, precision, heads)
