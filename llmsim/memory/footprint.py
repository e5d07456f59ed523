"""What one pass of one virtual stage allocates and frees, in bytes: from the layers' ledgers of activations.

A forward keeps the stage's activations. A backward works from the last part to the first: when it comes to part j the
activations of the parts behind it are gone, so its highest point is the maximum over j of what is left, recomputed
and worked with. A split backward leaves to its second half the inputs of the matrices and the gradients of their
outputs (Qi et al. 2023, arXiv 2401.10241, table 1: 32sbh of a GPT layer).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from llmsim.model.activations import (
    embedding_activation_bytes,
    head_activation_bytes,
    head_transient_bytes,
    layer_activation_bytes,
    peak_transient_bytes,
    recompute_buffer_bytes,
)
from llmsim.model.architecture import Architecture, LayerKind, has_experts, is_linear
from llmsim.model.linear_attention import linear_output_gradients
from llmsim.model.moe import routing
from llmsim.model.projector import projector_activation_bytes, token_shard
from llmsim.model.shard import Shard
from llmsim.program.stages.fsdp import Sharding
from llmsim.program.stages.shares import Shares

_WEIGHT_INPUT = ("_input", "token_ids")
_NOT_OF_WEIGHTS = ("norm_input", "norm1_input", "norm2_input", "activation_input", "combine_input", "layer_input")


@dataclass(frozen=True, slots=True)
class Part:
    """One layer, embedding or head. Bytes of one micro-batch on one rank.

    kept: from forward to backward. recomputed: beside it, while it is run backward. working: the rest of the
    backward's highest point. forward: the highest point of the forward beside `kept`. waiting: between the halves of a
    split backward. moved: from the forward to its copy outside, and back before the backward (offloaded activations).
    """

    kept: float
    recomputed: float
    working: float
    forward: float
    waiting: float
    parameters: Shares
    moved: float = 0.0


def layer_part(arch: Architecture, shard: Shard, kind: LayerKind, parameters: Shares) -> Part:
    kept = sum(layer_activation_bytes(arch, shard, kind).values())
    recomputed = recompute_buffer_bytes(arch, shard, kind)
    working = peak_transient_bytes(arch, shard, kind)
    plain = layer_activation_bytes(arch, replace(shard, recompute="none"), kind)
    inputs = sum(size for name, size in plain.items() if _is_weight_input(name))
    # Without a graph the forward frees as it goes: it holds about the two widest neighbours of one layer.
    wide = sorted(plain.values())[-2:]
    forward = 0.0 if not recomputed else min(recomputed, sum(wide))
    waiting = inputs + _output_gradients(arch, shard, kind)
    return Part(kept, recomputed, working, forward, waiting, parameters)


def embedding_part(arch: Architecture, shard: Shard, parameters: Shares) -> Part:
    kept = sum(embedding_activation_bytes(arch, shard).values())
    stream = shard.local_tokens * arch.hidden * shard.element
    return Part(kept, 0.0, 2 * stream, stream, kept + stream, parameters)


def head_part(arch: Architecture, shard: Shard, parameters: Shares) -> Part:
    saved = head_activation_bytes(arch, shard)
    transient = head_transient_bytes(arch, shard)
    stream = shard.local_tokens * arch.hidden * shard.element
    # Between the halves: the input of the output matrix, and the gradient of the logits in their place.
    waiting = saved.get("logits_input", 0.0) + saved.get("logits", 0.0)
    return Part(sum(saved.values()), 0.0, transient + stream, transient, waiting, parameters)


def mtp_part(arch: Architecture, shard: Shard, parameters: Shares) -> Part:
    """The entry of a multi-token prediction module: two norms, what they read, and the projection's input."""
    stream = shard.local_tokens * arch.hidden
    kept = 2 * stream * shard.element + 2 * stream * shard.operand
    whole = shard.tokens * arch.hidden * shard.element
    return Part(kept, 0.0, 3 * whole, whole, 2 * stream * shard.operand + stream * shard.element, parameters)


def projector_part(arch: Architecture, images: Shard, parameters: Shares) -> Part:
    """The final norm of a vision encoder and its projector."""
    saved = projector_activation_bytes(arch, images)
    stream = token_shard(arch, images).tokens * arch.hidden * images.element
    inputs = sum(size for name, size in saved.items() if name.startswith("matrix"))
    return Part(sum(saved.values()), 0.0, 2 * stream, stream, inputs + stream, parameters)


def _is_weight_input(name: str) -> bool:
    return name.endswith(_WEIGHT_INPUT) and name not in _NOT_OF_WEIGHTS and not name.endswith("_norm_input")


def _output_gradients(arch: Architecture, shard: Shard, kind: LayerKind) -> float:
    """Gradients of the outputs of all matrices of a layer, as the products of the weight gradients read them.

    In fp8 or NVFP4 they are converted before the first half's products, and only that copy waits (Transformer Engine's
    `delay_wgrad_compute`).
    """
    tokens, local = shard.tokens, shard.local_tokens
    heads = arch.heads / shard.tp
    if is_linear(kind):
        size = linear_output_gradients(arch, shard)
    elif arch.mla:
        mla = arch.mla
        keys = mla.kv_lora_rank if arch.indexer else mla.qk_nope_head_dim
        size = tokens * heads * (arch.qk_head_dim + keys + arch.v_head_dim)
        if arch.indexer:
            size += tokens * ((arch.indexer.heads + 1) * arch.indexer.head_dim + arch.indexer.heads)
        size += local * (mla.q_lora_rank + mla.kv_lora_rank + mla.qk_rope_head_dim)
    else:
        query = heads * arch.qk_head_dim * (1 + arch.output_gate)
        size = tokens * (query + shard.kv_heads(arch) * (arch.qk_head_dim + arch.v_head_dim))
    if not is_linear(kind):
        size += local * arch.hidden
    up = arch.mlp_matrices - 1
    if has_experts(kind):
        r = routing(arch, shard)
        assert arch.moe is not None
        size += r.gathered * (r.ffn_hidden * up + arch.hidden)
        if arch.moe.shared_ffn_hidden:
            size += tokens * arch.moe.shared_ffn_hidden / shard.tp * up + local * arch.hidden
    else:
        size += tokens * arch.ffn_hidden / shard.tp * up + local * arch.hidden
    return size * shard.operand


@dataclass(frozen=True)
class Gradients:
    """How weight gradients come into being. sharding: parameters are gathered and gradients scattered part by part."""

    sharding: Sharding | None


@dataclass(frozen=True)
class Footprint:
    """One virtual stage: its parts in forward order."""

    parts: tuple[Part, ...]
    gradients: Gradients
    received: float  # bytes of the boundary buffers of its transfers

    @cached_property
    def kept(self) -> float:
        """From the start of a forward to the end of its backward."""
        return sum(part.kept for part in self.parts)

    @cached_property
    def waiting(self) -> float:
        """Between the halves of a split backward, in place of `kept`."""
        return sum(part.waiting for part in self.parts)

    @property
    def moved(self) -> float:
        """Outside the GPU from its forward to its backward."""
        return sum(part.moved for part in self.parts)

    @property
    def parameters(self) -> Shares:
        return sum((part.parameters for part in self.parts), Shares(0.0, 0.0))

    @cached_property
    def forward(self) -> float:
        """Highest point of a forward beside `kept`: parts come one after the other."""
        if not self.parts:
            return self.received
        gathered = self._gathered(self.parts)
        # Of the activations that count from the start on, those of later parts are not there yet.
        ahead = _after([part.kept for part in self.parts])
        moved = _with_next([part.moved for part in self.parts[::-1]])[::-1]  # the part before is still being copied
        points = zip(self.parts, gathered, ahead, moved)
        return self.received + max(0.0, *(p.forward + g - a + m for p, g, a, m in points))

    @cached_property
    def backward(self) -> float:
        """Highest point of a fused backward beside `kept`."""
        return self._backward([part.kept for part in self.parts], weights=True)

    @cached_property
    def backward_input(self) -> float:
        """Highest point of the first half of a split backward, beside `kept`."""
        return self._backward([part.kept - part.waiting for part in self.parts], weights=False)

    @cached_property
    def backward_weight(self) -> float:
        """Highest point of the second half beside `waiting`."""
        if self.gradients.sharding is None:
            return 0.0
        return max((self._unsharded(part.parameters) for part in self.parts), default=0.0)

    def _backward(self, freed: Sequence[float], weights: bool) -> float:
        if not self.parts:
            return self.received
        backwards = self.parts[::-1]
        gone = _before(freed[::-1])
        gathered = self._gathered(backwards)
        moved = _with_next([part.moved for part in backwards])
        points = []
        for index, part in enumerate(backwards):
            point = part.recomputed + part.working + gathered[index] + moved[index] - gone[index]
            if weights and self.gradients.sharding is not None:
                point += self._unsharded(part.parameters)
                if index:  # the part before is still being scattered
                    point += self._scattering(backwards[index - 1].parameters)
            points.append(point)
        return self.received + max(0.0, *points)

    def _gathered(self, parts: Sequence[Part]) -> list[float]:
        """Whole parameters of a part and of the next one, which is gathered while it computes."""
        sharding = self.gradients.sharding
        if sharding is None or not sharding.reshard:
            return [0.0] * len(parts)
        sizes = [self._whole(part.parameters) * sharding.param_bytes for part in parts]
        return _with_next(sizes) if sharding.prefetch else sizes

    def _whole(self, shares: Shares) -> float:
        sharding = self.gradients.sharding
        assert sharding is not None
        return shares.dense * (sharding.ranks > 1) + shares.expert * (sharding.expert_ranks > 1)

    def _unsharded(self, shares: Shares) -> float:
        """The gradients of one part as autograd makes them."""
        sharding = self.gradients.sharding
        assert sharding is not None
        return self._whole(shares) * sharding.param_bytes

    def _scattering(self, shares: Shares) -> float:
        """The buffer that is reduced, of the reduction's type."""
        sharding = self.gradients.sharding
        assert sharding is not None
        return self._whole(shares) * sharding.grad_bytes


def _with_next(values: Sequence[float]) -> list[float]:
    """Each value and the one behind it."""
    return [value + following for value, following in zip(values, [*values[1:], 0.0])]


def _before(values: Sequence[float]) -> list[float]:
    """Sum of all values in front of each."""
    return [0.0, *accumulate(values)][: len(values)]


def _after(values: Sequence[float]) -> list[float]:
    """Sum of all values behind each."""
    return _before(values[::-1])[::-1]
