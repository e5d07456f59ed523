"""What each virtual stage holds, part by part in forward order: embedding, layers, head; a vision encoder in front of
them, modules of multi-token prediction behind.

A vision encoder is on the first virtual stage with the embedding, and each context-parallel rank encodes all images
(Megatron-LM's multimodal models without ranks of their own for the encoder). Modules of multi-token prediction are on
the last one, with the head that they share (DeepSeek-AI 2024, arXiv 2412.19437, section 2.2; Megatron-Core).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from llmsim.model.architecture import Architecture, LayerKind
from llmsim.model.shard import Shard
from llmsim.parallel.stages import split_layers
from llmsim.scenario.sections import Recompute

Role = Literal["embedding", "layer", "head", "projector", "mtp"]


@dataclass(frozen=True, slots=True)
class StagePart:
    """One part of a virtual stage.

    stack: whose it is: `encoder`, `decoder` or `mtp`. layer: number in the model in forward order, -1 if none; kind,
    window and recompute: of a layer. shared: it computes with parameters that another part of its rank holds.
    """

    role: Role
    stack: str = "decoder"
    layer: int = -1
    kind: LayerKind = "dense"
    window: int = 0
    recompute: str = "none"
    shared: bool = False

    @property
    def alike(self) -> "StagePart":
        """The same for all layers that are alike."""
        if self.layer < 0:
            return self
        return StagePart(self.role, self.stack, -1, self.kind, self.window, self.recompute, self.shared)

    def architecture(self, whole: Architecture) -> Architecture:
        """Of its stack; a projector needs both stacks."""
        return whole.encoder if self.stack == "encoder" and self.role != "projector" else whole

    def shard(self, whole: Architecture, shard: Shard) -> Shard:
        """How a rank that has `shard` of a decoder's layer computes this part."""
        shard = replace(shard, recompute=self.recompute) if self.role == "layer" else shard
        return image_shard(whole, shard) if self.stack == "encoder" else shard


def image_shard(arch: Architecture, shard: Shard) -> Shard:
    """One rank's share of an encoder's layer: images are sequences of their own."""
    assert arch.encoder is not None
    return replace(
        shard,
        micro_batch=shard.micro_batch * arch.encoder_images,
        seq_len=arch.image_positions,
        cp=1,
        ep=1,
        dropout=bool(arch.encoder.dropout),
        loss_chunks=1,
    )


def stage_parts(
    arch: Architecture, recompute: Recompute, stages: int, apart: bool, given: Sequence[int] | None = None
) -> tuple[tuple[StagePart, ...], ...]:
    """The parts of each of `stages` virtual stages.

    apart: the last one is on another rank than the first, and holds what both need a second time. given: layers of
    each stage; None: equal counts.
    """
    ahead = arch.encoder.layers if arch.encoder else 0
    kinds, windows = arch.layer_kinds(), arch.layer_windows()
    result = []
    for number, layers in enumerate(split_layers(arch.layers, stages, given)):
        parts: list[StagePart] = []
        if number == 0:
            parts += _encoder(arch, recompute)
            parts.append(StagePart("embedding"))
        for place, layer in enumerate(layers):
            parts.append(
                StagePart("layer", "decoder", ahead + layer, kinds[layer], windows[layer], _mode(recompute, place))
            )
        if number == stages - 1:
            parts.append(StagePart("head", shared=arch.tied_embeddings and not apart))
            for module in range(arch.mtp_layers):
                mode = _mode(recompute, len(layers) + module)
                parts += _prediction(arch, ahead + arch.layers + module, mode, module > 0 or not apart)
        result.append(tuple(parts))
    return tuple(result)


def _encoder(arch: Architecture, recompute: Recompute) -> list[StagePart]:
    if arch.encoder is None:
        return []
    layers = zip(arch.encoder.layer_kinds(), arch.encoder.layer_windows())
    return [
        StagePart("embedding", "encoder"),
        *(StagePart("layer", "encoder", i, *layer, _mode(recompute, i)) for i, layer in enumerate(layers)),
        StagePart("projector", "encoder"),
    ]


def _prediction(arch: Architecture, layer: int, mode: str, shared: bool) -> list[StagePart]:
    """A module of multi-token prediction; shared: the embedding is on its rank already.

    A tied head is the embedding.
    """
    return [
        StagePart("embedding", "mtp", shared=shared or arch.tied_embeddings),
        StagePart("mtp", "mtp"),
        StagePart("layer", "mtp", layer, arch.mtp_kind(), 0, mode),
        StagePart("head", "mtp", shared=True),
    ]


def _mode(recompute: Recompute, place: int) -> str:
    """The recompute mode of the layer at a place of its virtual stage."""
    return recompute.mode if recompute.layers is None or place < recompute.layers else "none"
