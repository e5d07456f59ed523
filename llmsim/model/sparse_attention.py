"""Sparse attention behind a lightning indexer on one rank: its operators, FLOPs, parameters and what it keeps.

DeepSeek-V3.2 (arXiv 2512.02556, section 2.1): a small indexer scores all earlier tokens for each query and attention
sees the best `top_k`; latent attention is absorbed, so that all heads of a query read the same keys. Training is its
sparse stage: the indexer, cut off from the model's own gradient, learns the attention's distribution over the keys
that it chose. Each tensor-parallel rank has the whole indexer (Megatron-Core). Scores are made and searched for some
queries at a time, so that no s² of them is ever held.
"""

from dataclasses import dataclass
from math import ceil

from llmsim.model import traffic
from llmsim.model.architecture import Architecture
from llmsim.model.exchange import whole
from llmsim.model.latent_attention import absorbed_values
from llmsim.model.operators import Fixed, Linear, Operator, StepList, elementwise, exchange
from llmsim.model.shard import Shard
from llmsim.model.sublayers import Indexer, Mla
from llmsim.model.work import Attention, Communication, Gemm, MemoryBound, Step

_INDEX = 4  # bytes of the place of a chosen key


@dataclass(frozen=True)
class _Detached(Linear):
    """A product whose input has no gradient."""

    def list_backward(self, steps: StepList, weights: bool) -> None:
        if weights:
            steps.join(self._list_wgrad(steps, steps.head))


def mean_keys(indexer: Indexer, seq_len: float) -> float:
    """Keys that a query attends to, averaged over a causal sequence."""
    k = min(indexer.top_k, seq_len)
    return k - k * k / (2 * seq_len)


def indexer_parameters(indexer: Indexer, mla: Mla, hidden: int) -> int:
    """Queries from the low-rank q, one key and a weight a head from the hidden state, LayerNorm on the key."""
    width = indexer.heads * indexer.head_dim
    return mla.q_lora_rank * width + hidden * (indexer.head_dim + indexer.heads) + 2 * indexer.head_dim


def indexer_projection_flops(indexer: Indexer, mla: Mla, hidden: int) -> float:
    """Forward FLOPs of one token in the indexer's three products with weights."""
    return 2.0 * (mla.q_lora_rank * indexer.heads * indexer.head_dim + hidden * (indexer.head_dim + indexer.heads))


def sparse_score_flops(arch: Architecture, seq_len: float) -> float:
    """Forward FLOPs of one token: index scores of all earlier tokens, then scores and values of the chosen keys."""
    indexer, mla = arch.indexer, arch.mla
    assert indexer is not None and mla is not None
    width = 2 * mla.kv_lora_rank + mla.qk_rope_head_dim
    scored = 2.0 * indexer.heads * indexer.head_dim * seq_len / 2
    return scored + 2.0 * arch.heads * width * mean_keys(indexer, seq_len)


def sparse_core(arch: Architecture, shard: Shard) -> list[Operator]:
    """Operators between the projections and the output projection: indexer, core over the chosen keys, values."""
    indexer, mla = arch.indexer, arch.mla
    assert indexer is not None and mla is not None
    batch, positions, heads = shard.micro_batch, ceil(shard.positions), ceil(arch.heads / shard.tp)
    window = indexer.top_k if indexer.top_k < positions else None
    rank = mla.kv_lora_rank
    forward, backward = (
        Step(name, Attention(
            batch, heads, 1, positions, positions, rank + mla.qk_rope_head_dim, rank, True, grad,
            shard.core_precision, window, shard.flash_version,
        ))
        for name, grad in (("attention", False), ("attention_grad", True))
    )  # fmt: skip
    return [*_indexer(arch, shard), Fixed((forward,), (backward,)), absorbed_values(arch, shard)]


def _indexer(arch: Architecture, shard: Shard) -> list[Operator]:
    """From the low-rank q and the hidden state to the chosen keys."""
    indexer, mla, e = arch.indexer, arch.mla, shard.element
    assert indexer is not None and mla is not None
    tokens, width, precision = shard.tokens, indexer.heads * indexer.head_dim, shard.core_precision
    chain: list[Operator] = []
    if shard.split_sequence:
        size = tokens * (arch.hidden + mla.q_lora_rank) * e
        chain.append(exchange("index_inputs", Communication("all_gather", "tp", size), None))
    chain += [
        _Detached("index_q", whole(tokens), width, mla.q_lora_rank, shard, precision),
        _Detached("index_k", whole(tokens), indexer.head_dim, arch.hidden, shard, precision),
        elementwise("index_k_norm", *traffic.norm(arch, shard, tokens, indexer.head_dim)),
        elementwise("index_rope", *traffic.rope(shard, tokens * (indexer.heads + 1) * mla.qk_rope_head_dim)),
        _Detached("index_weights", whole(tokens), indexer.heads, arch.hidden, shard, precision),
        _choice(arch, shard),
    ]
    return chain


def _choice(arch: Architecture, shard: Shard) -> Operator:
    """Scores of all earlier tokens and the best of them; backward the loss against the attention's distribution.

    A score is written once and read once to be chosen. Backward, over the chosen keys alone: the attention's scores
    again, summed over heads (over tp too), the index scores again, and gradients of the indexer's queries and keys.
    """
    indexer, mla, precision = arch.indexer, arch.mla, shard.core_precision
    assert indexer is not None and mla is not None
    batch, positions, dim = shard.micro_batch, ceil(shard.positions), indexer.head_dim
    chosen, group = ceil(mean_keys(indexer, positions)), batch * indexer.heads
    scores = 2.0 * traffic.FP32 * batch * positions * positions / 2
    latent, heads = mla.kv_lora_rank + mla.qk_rope_head_dim, ceil(arch.heads / shard.tp)
    forward = (
        Step("index_scores", Gemm(positions, ceil(positions / 2), dim, group, precision)),
        Step("index_top_k", MemoryBound(scores, 2)),
    )
    target = [Step("index_target", Gemm(positions, chosen, latent, batch * heads, precision))]
    if shard.tp > 1:
        size = float(batch * positions * chosen * traffic.FP32)
        target.append(Step("index_target_sum", Communication("all_reduce", "tp", size), "tp"))
    backward = (
        *target,
        Step("index_scores_again", Gemm(positions, chosen, dim, group, precision)),
        Step("index_dq", Gemm(positions, dim, chosen, group, precision)),
        Step("index_dk", Gemm(chosen, dim, positions, group, precision)),
    )
    return Fixed(forward, backward)


def sparse_activation_bytes(arch: Architecture, shard: Shard) -> dict[str, float]:
    """Bytes that absorbed queries, the latent key, core and indexer keep, beside inputs of the low-rank projections."""
    indexer, mla, e, tokens = arch.indexer, arch.mla, shard.element, shard.tokens
    assert indexer is not None and mla is not None
    heads, latent = arch.heads / shard.tp, mla.kv_lora_rank + mla.qk_rope_head_dim
    return {
        "q_absorb_input": tokens * heads * mla.qk_nope_head_dim * e,
        "query": tokens * heads * latent * e,
        "key": tokens * latent * e,
        "attention_output": tokens * heads * mla.kv_lora_rank * e,
        "logsumexp": tokens * heads * traffic.FP32,
        "index_query": tokens * indexer.heads * indexer.head_dim * e,
        "index_key": 2 * tokens * indexer.head_dim * e,  # before and after its norm
        "index_weights": tokens * indexer.heads * e,
        "chosen_keys": tokens * min(indexer.top_k, shard.positions) * _INDEX,
    }


def sparse_working_bytes(arch: Architecture, shard: Shard) -> tuple[float, float, float]:
    """Bytes of the gradients of queries and latent keys, of the core's output, and of the core's fp32 sums of keys."""
    mla, e, tokens, heads = arch.mla, shard.element, shard.tokens, arch.heads / shard.tp
    assert mla is not None
    latent = mla.kv_lora_rank + mla.qk_rope_head_dim
    scratch = tokens * (latent + heads) * traffic.FP32
    return tokens * (heads + 1) * latent * e, tokens * heads * mla.kv_lora_rank * e, scratch
