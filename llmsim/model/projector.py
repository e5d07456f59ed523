"""What joins a vision encoder to a decoder on one rank: the encoder's final norm, the projector, its tokens put in.

Tensor parallelism splits the matrices by columns and by rows in turn, as those of an MLP (Megatron-Core's
`MultimodalProjector`); a last one that is split by columns gathers its output.
"""

from dataclasses import replace
from math import ceil

from llmsim.model import traffic
from llmsim.model.architecture import Architecture
from llmsim.model.exchange import column_entry, row_exit, whole
from llmsim.model.operators import LayerSteps, Linear, Operator, assemble, elementwise, exchange
from llmsim.model.shard import Shard
from llmsim.model.work import Communication, MemoryBound


def projector_steps(arch: Architecture, images: Shard) -> LayerSteps:
    """Norm, neighbours side by side, matrices, tokens written among those of the text. images: `image_shard`'s."""
    inner = arch.encoder
    assert inner is not None
    e, shard = images.element, token_shard(arch, images)
    chain: list[Operator] = []
    if inner.final_norm:
        chain.append(elementwise("final_norm", *traffic.norm(inner, images, images.local_tokens, inner.hidden)))
    if arch.projector.merge > 1:
        chain.append(elementwise("merge", *traffic.copy(images, images.local_tokens * inner.hidden)))
    shapes = arch.projector.shapes(inner.hidden, arch.hidden)
    for number, (inputs, outputs) in enumerate(shapes, 1):
        chain.append(_matrix(number, inputs, outputs, shard))
        if number < len(shapes):
            values = shard.tokens * outputs / (shard.tp if number % 2 else 1)
            chain.append(elementwise("activation", MemoryBound(2.0 * values * e), MemoryBound(3.0 * values * e)))
    if len(shapes) % 2 and shard.tp > 1:
        output = Communication("all_gather", "tp", shard.tokens * arch.hidden * e)
        chain.append(exchange("output_all_gather", output, None))
    chain.append(elementwise("image_tokens", *traffic.copy(shard, shard.tokens * arch.hidden)))
    return assemble(chain, images, recompute=False)


def _matrix(number: int, inputs: int, outputs: int, shard: Shard) -> Linear:
    """The projector's matrix of this number, from 1: odd ones are split by columns, even ones by rows."""
    by_columns = number % 2 == 1
    n, k = (ceil(outputs / shard.tp), inputs) if by_columns else (outputs, ceil(inputs / shard.tp))
    ends = column_entry(shard, inputs) if by_columns else row_exit(shard, outputs)
    return Linear(
        f"matrix{number}", whole(shard.tokens), n, k, shard, shard.precision,
        cast=traffic.narrow_cast(shard, shard.tokens * k),
        cast_grad=traffic.narrow_cast(shard, shard.tokens * n),
        **ends,
    )  # fmt: skip


def token_shard(arch: Architecture, images: Shard) -> Shard:
    """Of the tokens that stand for the images of `images`."""
    return replace(images, seq_len=arch.encoder_tokens // arch.projector.merge)


def projector_activation_bytes(arch: Architecture, images: Shard) -> dict[str, float]:
    """Bytes kept by the final norm and the projector: the norm's input, and each matrix's and activation's."""
    inner = arch.encoder
    assert inner is not None
    shard = token_shard(arch, images)
    saved = {"final_norm_input": images.local_tokens * inner.hidden * images.element * inner.final_norm}
    for number, (inputs, _) in enumerate(arch.projector.shapes(inner.hidden, arch.hidden), 1):
        values = shard.local_tokens * inputs if number % 2 else shard.tokens * inputs / shard.tp
        saved[f"matrix{number}_input"] = values * shard.operand
        if number > 1:
            saved[f"activation{number - 1}_input"] = values * shard.element
    return {name: size for name, size in saved.items() if size}
