"""The two ends of a model on one rank: the embedding, and the head with its vocabulary-parallel cross-entropy."""

from dataclasses import replace
from math import ceil

from llmsim.model import traffic
from llmsim.model.architecture import Architecture
from llmsim.model.exchange import column_entry, whole
from llmsim.model.operators import Fixed, LayerSteps, Linear, Operator, StepList, assemble, elementwise, exchange
from llmsim.model.shard import Shard
from llmsim.model.work import Communication, MemoryBound, Step

VOCAB_MULTIPLE = 128  # rows of the embedding on one rank are padded to this, so that GEMMs are whole tiles (Megatron)


def vocab_on_rank(arch: Architecture, shard: Shard) -> int:
    """Rows of the (padded) vocabulary that one tensor-parallel rank holds."""
    return ceil(arch.vocab / (VOCAB_MULTIPLE * shard.tp)) * VOCAB_MULTIPLE


def embedding_steps(arch: Architecture, shard: Shard) -> LayerSteps:
    """Lookup, reduction over tp, positions, dropout; the backward makes a dense gradient of the table.

    A model without vocabulary (a vision encoder) multiplies its patches by the patch matrix instead.
    """
    h, e, local = arch.hidden, shard.element, shard.local_tokens
    chain: list[Operator] = []
    rows = vocab_on_rank(arch, shard)
    if arch.vocab:
        looked_up = 2.0 * shard.tokens * h * e
        table = rows * h * e
        if shard.accumulate:
            table += rows * h * (e + 2.0 * shard.gradient)  # added into the gradient buffer
        lookup = MemoryBound(looked_up, 1 if shard.tp == 1 else 3)  # with tp: mask, look up, zero the others
        scatter = Step("embedding_grad", MemoryBound(looked_up + table, 3), phase="weight")
        chain.append(_Table((Step("embedding", lookup),), scatter))
        values = shard.tokens * h * e
        if shard.split_sequence:
            chain.append(
                exchange(
                    "embedding_reduce_scatter",
                    Communication("reduce_scatter", "tp", values),
                    Communication("all_gather", "tp", values),
                )
            )
        elif shard.tp > 1:
            chain.append(exchange("embedding_all_reduce", Communication("all_reduce", "tp", values), None))
    elif arch.patch_inputs:
        chain.append(Linear("patches", whole(local), h, arch.patch_inputs, shard, shard.core_precision))
    if arch.position == "learned":
        add = MemoryBound(3.0 * local * h * e)
        chain.append(elementwise("positions", add, MemoryBound(local * h * e)))
    if arch.embedding_norm:
        chain.append(elementwise("embedding_norm", *traffic.norm(arch, shard, local, h)))
    chain.append(elementwise("embedding_dropout", *traffic.dropout(shard, local * h)))
    return _without_recompute(chain, shard)


class _Table(Fixed):
    """The embedding table: its whole backward is a weight gradient."""

    def __init__(self, forward: tuple[Step, ...], gradient: Step) -> None:
        super().__init__(forward, (gradient,))

    def list_backward(self, steps: StepList, weights: bool) -> None:
        if weights:
            self.list_weight(steps)

    def list_weight(self, steps: StepList) -> None:
        steps.extend(self.backward, "weight")


def head_steps(arch: Architecture, shard: Shard) -> LayerSteps:
    """Final norm, logits and cross-entropy. Logits are never fp8 and never recomputed.

    The loss of a vocabulary split over tp needs the maximum, the sum of exponentials and the target's logit of each
    token: three all-reduces of 4 bytes a token.
    """
    h = arch.hidden
    chain: list[Operator] = []
    if arch.final_norm:
        chain.append(elementwise("final_norm", *traffic.norm(arch, shard, shard.local_tokens, h)))
    if arch.vocab:
        rows = vocab_on_rank(arch, shard)
        entry = column_entry(shard, h)
        if shard.narrow and "entry" in entry:
            gather = Communication("all_gather", "tp", shard.tokens * h * shard.element)
            entry |= {"entry": gather} | ({"regather": gather} if shard.regather else {})
        serial = replace(shard, tp_overlap=False)  # no framework pipelines the head's gather with its GEMM
        # Chunks are products of fewer rows each, whose weight gradients add up.
        tokens, chunks = whole(shard.tokens / shard.loss_chunks), shard.loss_chunks
        chain.append(Linear("logits", tokens, rows, h, serial, shard.core_precision, chunks, **entry))
        chain.append(_cross_entropy(shard, shard.tokens * rows))
    return _without_recompute(chain, shard)


def mtp_steps(arch: Architecture, shard: Shard) -> LayerSteps:
    """The entry of a multi-token prediction module (DeepSeek-V3, arXiv 2412.19437, section 2.2).

    Norms of the hidden state and of the next token's embedding, side by side through a 2h × h projection, which
    Megatron splits by columns and gathers. The module goes on with one layer (`arch.mtp_kind()`) and the shared head.
    """
    h, local = arch.hidden, shard.local_tokens
    output = Communication("all_gather", "tp", shard.tokens * h * shard.element)
    chain: list[Operator] = [
        elementwise("mtp_norms", *traffic.norm(arch, shard, 2 * local, h)),
        Linear(
            "mtp_projection", whole(shard.tokens), ceil(h / shard.tp), 2 * h, shard, shard.precision,
            cast=traffic.narrow_cast(shard, 2 * local * h, fused=True),
            cast_grad=traffic.narrow_cast(shard, shard.tokens * h / shard.tp),
            **column_entry(shard, 2 * h),
        ),
    ]  # fmt: skip
    if shard.tp > 1:
        # Backward each rank takes its own columns, for which a split sequence must be gathered first.
        chain.append(exchange("mtp_all_gather", output, output if shard.split_sequence else None))
    return assemble(chain, shard)


def _cross_entropy(shard: Shard, logits: float) -> Fixed:
    """The loss over `logits` values.

    Fused: one pass for the statistics, one that leaves the gradient in place of the logits, one to scale it.
    Unfused (Megatron's): cast to fp32, maximum, subtract, exponentiate, sum, divide; backward scales and casts back.
    """
    e, fp32 = shard.element, traffic.FP32
    if shard.fused("cross_entropy"):
        sizes, kernels = (float(e), 2.0 * e, 2.0 * e), (1, 1, 1)
    else:
        sizes = ((e != fp32) * (e + fp32) + fp32, 7.0 * fp32, 2.0 * fp32 + (e != fp32) * (e + fp32))
        kernels = (1 + (e != fp32), 5, 1 + (e != fp32))
    first, rest, back = (MemoryBound(logits * size, count) for size, count in zip(sizes, kernels))
    if shard.tp == 1:
        forward: tuple[Step, ...] = (Step("cross_entropy", first), Step("cross_entropy_softmax", rest))
    else:
        token = Communication("all_reduce", "tp", shard.tokens * fp32)
        forward = (
            Step("cross_entropy_max", first),
            Step("max_all_reduce", token, "tp"),
            Step("cross_entropy_softmax", rest),
            Step("target_all_reduce", token, "tp"),
            Step("sum_all_reduce", token, "tp"),
        )
    return Fixed(forward, (Step("cross_entropy_grad", back),))


def _without_recompute(chain: list[Operator], shard: Shard) -> LayerSteps:
    return assemble(chain, shard, recompute=False)
