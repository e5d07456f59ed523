"""What a transformer is made of: its shape, and nothing about hardware, batch or parallelism.

An `Architecture` is the one description that parameters, FLOPs, kernels and memory are derived from. It comes from a
plain mapping (`llmsim.model.mapping`: a scenario's inline model, an entry of the catalogue) or from a Hugging Face
config.json (`llmsim.model.huggingface`); both raise `ModelError` in one sentence when the shape is impossible.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from llmsim.errors import ModelError
from llmsim.model.sublayers import MOST_LAYERS, WIDEST, Indexer, LinearAttention, Mla, Moe, Projector, in_range, one_of

Position = Literal["learned", "rope", "alibi", "none"]
Norm = Literal["layernorm", "rmsnorm"]
QkNorm = Literal["head", "width"]
LayerKind = Literal["dense", "moe", "linear_dense", "linear_moe"]  # the MLP, behind attention or linear attention

POSITIONS: tuple[Position, ...] = ("learned", "rope", "alibi", "none")
NORMS: tuple[Norm, ...] = ("layernorm", "rmsnorm")
QK_NORMS: tuple[QkNorm, ...] = ("head", "width")

# key: (least, most) of each whole number, far beyond every published model; 0 is a default or a thing left out.
_RANGES: dict[str, tuple[int, int]] = {
    "layers": (1, MOST_LAYERS),
    "hidden": (1, WIDEST),
    "heads": (1, 2**16),
    "vocab": (0, 10**8),
    "kv_heads": (0, 2**16),
    "head_dim": (0, 2**16),
    "ffn_hidden": (0, 2**24),
    "max_positions": (0, 10**9),
    "norms_per_layer": (0, 16),
    "mtp_layers": (0, 64),
    "sliding_window": (0, 10**9),
    "full_attention_every": (0, MOST_LAYERS),
    "patch_inputs": (0, 10**7),
    "encoder_tokens": (0, 10**6),
    "encoder_images": (1, 10**4),
}


_ONE_MATRIX = Projector()


def has_experts(kind: LayerKind) -> bool:
    """Whether a layer of this kind ends in a mixture of experts."""
    return kind in ("moe", "linear_moe")


def is_linear(kind: LayerKind) -> bool:
    """Whether a layer of this kind begins with linear attention."""
    return kind in ("linear_dense", "linear_moe")


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
    max_positions: int = 0  # rows of the learned table, or the longest trained context; 0: the sequence length at use
    norm: Norm = "layernorm"
    norms_per_layer: int = 2  # 1: parallel block with a common norm; 4: pre and post norms (Gemma 2)
    norm_bias: bool | None = None  # None: LayerNorm yes, RMSNorm no
    final_norm: bool = True
    embedding_norm: bool = False  # BLOOM
    head_bias: bool = False  # one value a word on the logits (GPT-J, Phi 2)
    bias: bool = True  # of every linear layer, unless one of the next three says otherwise
    qkv_bias: bool | None = None
    output_bias: bool | None = None  # attention output projection
    mlp_bias: bool | None = None
    qk_norm: bool = False  # norms on q and k
    qk_norm_over: QkNorm = "head"  # each head on its own (Qwen 3), or the whole width of all heads (OLMo 2)
    output_gate: bool = False  # a sigmoid gate, as wide as q, on what attention gives (Qwen3-Next)
    attention_sinks: bool = False  # one learned logit a head (gpt-oss)
    clamped_glu: bool = False  # gate and up are clamped before they are multiplied (gpt-oss)
    relative_positions: bool = False  # an h × h projection of relative positions a layer (Transformer-XL, Gopher)
    parallel_block: bool = False  # attention and MLP read the same input (GPT-J, PaLM)
    sliding_window: int = 0  # keys a query sees in windowed layers; 0: all
    window_chunks: bool = False  # windows are chunks: a query sees those before it in its own chunk (Llama 4)
    full_attention_every: int = 0  # with a window or linear layers: layer i is full when (i + 1) is a multiple; 0: none
    causal: bool = True
    dropout: bool | None = None  # trained with dropout; None: as GPT, where positions are learned
    moe: Moe | None = None
    mla: Mla | None = None
    linear: LinearAttention | None = None  # of all layers that are not full (Qwen3-Next)
    indexer: Indexer | None = None  # which keys latent attention sees (DeepSeek-V3.2)
    mtp_layers: int = 0  # multi-token prediction modules (DeepSeek-V3), each one more layer and head
    patch_inputs: int = 0  # vision encoder: values of one patch (channels × patch²)
    patch_bias: bool | None = None  # of the patch embedding; None: as `bias`
    class_token: bool = False  # one learned token more for each image, which the decoder does not see
    encoder: "Architecture | None" = None  # a vision encoder before this stack
    encoder_tokens: int = 0  # patches of one image
    encoder_images: int = 1  # images of each sequence
    projector: Projector = _ONE_MATRIX  # between the two

    def __post_init__(self) -> None:
        for key, (least, most) in _RANGES.items():
            in_range(key, getattr(self, key), least, most)
        if not self.vocab and not self.patch_inputs:
            raise ModelError("vocab: 0 is too small; expected an integer of at least 1: a model without words")
        one_of("position", self.position, POSITIONS)
        one_of("norm", self.norm, NORMS)
        one_of("qk_norm_over", self.qk_norm_over, QK_NORMS)
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
        if self.clamped_glu and not self.moe:
            raise ModelError("clamped_glu: true clamps what experts multiply, and the model has none; expected false")
        self._check_attention()
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

    def _check_attention(self) -> None:
        if self.linear and (self.parallel_block or self.sliding_window):
            other = "parallel_block" if self.parallel_block else "sliding_window"
            raise ModelError(f"linear: layers of linear attention do not go with {other}; expected one of the two")
        if self.indexer and not (self.mla and self.mla.q_lora_rank):
            raise ModelError("indexer: reads low-rank queries of mla, and the model has none; expected mla.q_lora_rank")

    def _check_encoder(self) -> None:
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
        return tuple(self._kind(i) for i in range(self.layers))

    def _kind(self, i: int) -> LayerKind:
        moe, every = self.moe, self.full_attention_every
        experts = moe is not None and i >= moe.first_dense and (i + 1) % moe.every == 0
        if self.linear is None or (every and (i + 1) % every == 0):
            return "moe" if experts else "dense"
        return "linear_moe" if experts else "linear_dense"

    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """The kind of each layer, first to last (MTP modules not included)."""
        return self._kinds

    def layer_windows(self) -> tuple[int, ...]:
        """Keys that a query may see in each layer, first to last; 0 means all."""
        every = self.full_attention_every
        return tuple(0 if every and (i + 1) % every == 0 else self.sliding_window for i in range(self.layers))

    def mtp_kind(self) -> LayerKind:
        """The kind of an MTP module's layer: that of the last layer of the stack."""
        return self._kinds[-1]
