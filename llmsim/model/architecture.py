"""What a transformer is made of: its shape, and nothing about hardware, batch or parallelism.

An `Architecture` is the one description that parameters, FLOPs, kernels and memory are derived from. It comes from a
plain mapping (`llmsim.model.mapping`: a scenario's inline model, an entry of the catalogue) or from a Hugging Face
config.json (`llmsim.model.huggingface`); both raise `ModelError` in one sentence when the shape is impossible.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from llmsim.errors import ModelError

Position = Literal["learned", "rope", "alibi", "none"]
Norm = Literal["layernorm", "rmsnorm"]
LayerKind = Literal["dense", "moe"]

POSITIONS: tuple[Position, ...] = ("learned", "rope", "alibi", "none")
NORMS: tuple[Norm, ...] = ("layernorm", "rmsnorm")

_MAY_BE_ZERO = (
    *("vocab", "kv_heads", "head_dim", "ffn_hidden", "max_positions", "norms_per_layer", "mtp_layers"),
    *("sliding_window", "full_attention_every", "patch_inputs", "encoder_tokens"),
)


def _at_least(key: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelError(f"{key}: {value!r} is not a whole number; expected an integer of at least {least}")
    if value < least:
        raise ModelError(f"{key}: {value} is too small; expected an integer of at least {least}")


def _one_of(key: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ModelError(f"{key}: {value!r} is not known; expected one of {', '.join(accepted)}")


@dataclass(frozen=True)
class Moe:
    """A mixture-of-experts MLP: a router picks `top_k` of `experts` for each token.

    Layer i (from 0) is MoE when i >= first_dense and (i + 1) is a multiple of `every`; the others are dense.
    """

    experts: int
    top_k: int
    expert_ffn_hidden: int
    shared_experts: int = 0  # experts that every token passes through
    shared_ffn_hidden: int = 0  # width of all shared experts together; 0: shared_experts × expert_ffn_hidden
    shared_gate: bool = False  # a sigmoid gate h → 1 on the shared expert (Qwen2-MoE)
    first_dense: int = 0
    every: int = 1
    capacity_factor: float | None = None  # None: dropless
    router_bias: bool = False  # one bias an expert (gpt-oss; the load-balancing correction of DeepSeek-V3)
    groups: int = 1  # experts are chosen within the `top_groups` best of so many groups (DeepSeek)
    top_groups: int = 1

    def __post_init__(self) -> None:
        for key in ("experts", "top_k", "expert_ffn_hidden", "every", "groups", "top_groups"):
            _at_least(f"moe.{key}", getattr(self, key), 1)
        for key in ("shared_experts", "shared_ffn_hidden", "first_dense"):
            _at_least(f"moe.{key}", getattr(self, key), 0)
        if self.top_k > self.experts:
            raise ModelError(f"moe.top_k: {self.top_k} is more than the {self.experts} experts")
        if self.top_groups > self.groups:
            raise ModelError(f"moe.top_groups: {self.top_groups} is more than the {self.groups} groups")
        if self.experts % self.groups:
            raise ModelError(f"moe.groups: {self.groups} does not divide the {self.experts} experts")
        if self.capacity_factor is not None and not self.capacity_factor > 0:
            raise ModelError(
                f"moe.capacity_factor: {self.capacity_factor} must be positive, or null for dropless"
            )
        if not self.shared_ffn_hidden:
            object.__setattr__(self, "shared_ffn_hidden", self.shared_experts * self.expert_ffn_hidden)


@dataclass(frozen=True)
class Mla:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 §2.1): low-rank q (optional) and joint low-rank kv."""

    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int = 0  # 0: a plain full-rank q projection (DeepSeek-V2-Lite)

    def __post_init__(self) -> None:
        for key in ("kv_lora_rank", "qk_nope_head_dim", "v_head_dim"):
            _at_least(f"mla.{key}", getattr(self, key), 1)
        for key in ("qk_rope_head_dim", "q_lora_rank"):
            _at_least(f"mla.{key}", getattr(self, key), 0)


@dataclass(frozen=True)
class Projector:
    """From the patches of a vision encoder to tokens of a decoder: matrices with an activation between each two.

    merge: neighbouring patches that become one token, side by side, before the first matrix (pixel shuffle).
    hidden: widths between the matrices; none: one matrix alone.
    """

    hidden: tuple[int, ...] = ()
    merge: int = 1
    bias: bool = False

    def __post_init__(self) -> None:
        _at_least("projector.merge", self.merge, 1)
        for width in self.hidden:
            _at_least("projector.hidden", width, 1)

    def shapes(self, patch: int, token: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each matrix, from patches of one width to tokens of another."""
        widths = (patch * self.merge, *self.hidden, token)
        return tuple(pairwise(widths))


@dataclass(frozen=True)
class Architecture:
    """A decoder (or, with causal=False, an encoder) stack. Integers are counts or widths; 0 stands for the default.

    Defaults are those of GPT-2/3: multi-head attention, a 4h GELU MLP, biases, LayerNorm, learned positions, tied head.
    Raises `ModelError` when the shape is impossible.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    vocab: int  # rows of the embedding, padding included; 0 for a vision encoder
    kv_heads: int = 0  # 0: heads
    head_dim: int = 0  # 0: hidden / heads; ignored by MLA
    ffn_hidden: int = 0  # 0: 4 × hidden; of dense layers
    gated_mlp: bool = False  # SwiGLU/GeGLU: three matrices
    tied_embeddings: bool = True
    position: Position = "learned"
    max_positions: int = (
        0  # rows of the learned table, or the longest trained context; 0: the sequence length at use
    )
    norm: Norm = "layernorm"
    norms_per_layer: int = 2  # 1: parallel block with a common norm; 4: pre and post norms (Gemma 2)
    norm_bias: bool | None = None  # None: LayerNorm yes, RMSNorm no
    final_norm: bool = True
    embedding_norm: bool = False  # BLOOM
    bias: bool = True  # of every linear layer, unless one of the next three says otherwise
    qkv_bias: bool | None = None
    output_bias: bool | None = None  # attention output projection
    mlp_bias: bool | None = None
    qk_norm: bool = False  # norms of head_dim on q and k (Qwen 3)
    attention_sinks: bool = False  # one learned logit a head (gpt-oss)
    clamped_glu: bool = False  # gate and up are clamped before they are multiplied (gpt-oss)
    relative_positions: bool = False  # an h × h projection of relative positions a layer (Transformer-XL, Gopher)
    parallel_block: bool = False  # attention and MLP read the same input (GPT-J, PaLM)
    sliding_window: int = 0  # keys a query sees in windowed layers; 0: all
    full_attention_every: int = 0  # with a window: layer i is full when (i + 1) is a multiple; 0: none is
    causal: bool = True
    dropout: bool | None = None  # trained with dropout; None: as GPT, where positions are learned
    moe: Moe | None = None
    mla: Mla | None = None
    mtp_layers: int = 0  # multi-token prediction modules (DeepSeek-V3), each one more layer and head
    patch_inputs: int = 0  # vision encoder: values of one patch (channels × patch²)
    patch_bias: bool | None = None  # of the patch embedding; None: as `bias`
    class_token: bool = False  # one learned token more for each image, which the decoder does not see
    encoder: "Architecture | None" = None  # a vision encoder before this stack
    encoder_tokens: int = 0  # patches of one image
    encoder_images: int = 1  # images of each sequence
    projector: Projector = Projector()  # between the two

    def __post_init__(self) -> None:
        for key in ("layers", "hidden", "heads"):
            _at_least(key, getattr(self, key), 1)
        for key in _MAY_BE_ZERO:
            _at_least(key, getattr(self, key), 0)
        _one_of("position", self.position, POSITIONS)
        _one_of("norm", self.norm, NORMS)
        if not self.head_dim and not self.mla and self.hidden % self.heads:
            raise ModelError(
                f"heads: {self.heads} does not divide hidden {self.hidden}; choose a divisor or give head_dim"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise ModelError(
                f"kv_heads: {self.kv_heads} does not divide heads {self.heads}; expected a divisor of heads"
            )
        if self.moe and self.moe.first_dense > self.layers:
            raise ModelError(f"moe.first_dense: {self.moe.first_dense} is more than the {self.layers} layers")
        self._check_encoder()
        defaults = {
            "kv_heads": self.heads,
            "head_dim": self.qk_head_dim if self.mla else self.hidden // self.heads,
            "ffn_hidden": 4 * self.hidden,
        }
        for key, value in defaults.items():
            if not getattr(self, key):
                object.__setattr__(self, key, value)
        switches = {
            "norm_bias": self.norm == "layernorm",
            "qkv_bias": self.bias,
            "output_bias": self.bias,
            "mlp_bias": self.bias,
            "patch_bias": self.bias,
            "dropout": self.position == "learned" and self.causal,
        }
        for key, value in switches.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)

    def _check_encoder(self) -> None:
        _at_least("encoder_images", self.encoder_images, 1)
        if self.encoder is None:
            if self.encoder_tokens:
                raise ModelError(f"encoder_tokens: {self.encoder_tokens} patches have no encoder; expected 0")
            return
        if not self.encoder_tokens:
            raise ModelError("encoder_tokens: the encoder needs the patches of one image; expected such as 576")
        if not self.encoder.patch_inputs:
            raise ModelError("encoder.patch_inputs: the encoder needs the values of one patch; expected such as 588")
        if self.encoder_tokens % self.projector.merge:
            raise ModelError(
                f"projector.merge: {self.projector.merge} does not divide the {self.encoder_tokens} encoder_tokens; "
                "expected a divisor"
            )

    @property
    def image_tokens(self) -> int:
        """Tokens of each sequence that stand for its images."""
        return self.encoder_images * self.encoder_tokens // self.projector.merge if self.encoder else 0

    @property
    def image_positions(self) -> int:
        """Positions that the encoder works on for one image, with its class token."""
        return self.encoder_tokens + self.encoder.class_token if self.encoder else 0

    @property
    def qk_head_dim(self) -> int:
        """Width of one query or key head, as the attention core sees it."""
        return self.mla.qk_nope_head_dim + self.mla.qk_rope_head_dim if self.mla else self.head_dim

    @property
    def v_head_dim(self) -> int:
        """Width of one value head."""
        return self.mla.v_head_dim if self.mla else self.head_dim

    @property
    def core_kv_heads(self) -> int:
        """Key/value heads of the attention core; MLA expands its latent to every head when training."""
        return self.heads if self.mla else self.kv_heads

    @property
    def mlp_matrices(self) -> int:
        """3 when gated (gate, up, down), else 2 (up, down)."""
        return 3 if self.gated_mlp else 2

    @cached_property
    def _kinds(self) -> tuple[LayerKind, ...]:
        moe = self.moe
        if moe is None:
            return ("dense",) * self.layers
        return tuple(
            "moe" if i >= moe.first_dense and (i + 1) % moe.every == 0 else "dense"
            for i in range(self.layers)
        )

    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """`dense` or `moe` for each layer, first to last (MTP modules not included)."""
        return self._kinds

    def layer_windows(self) -> tuple[int, ...]:
        """Keys that a query may see in each layer, first to last; 0 means all."""
        every = self.full_attention_every
        return tuple(0 if every and (i + 1) % every == 0 else self.sliding_window for i in range(self.layers))

    def mtp_kind(self) -> LayerKind:
        """The kind of an MTP module's layer: that of the last layer of the stack."""
        return self._kinds[-1]
