"""Shapes of what a layer may have beside plain attention and a plain MLP: experts, latent, linear and sparse attention.

Each is a frozen record that raises `ModelError`, one sentence with its key, when its numbers are impossible.
"""

from dataclasses import dataclass
from itertools import pairwise

from llmsim.errors import ModelError

MOST_LAYERS = 2_000  # twice the deepest transformer (DeepNet, arXiv 2203.00555)
WIDEST = 2**22  # of a hidden state or a matrix; GPT-4-sized models are at 2**14
_DEEPEST_PROJECTOR = 16
# key: (least, most) of each whole number, far beyond every published model; 0 is a default or a thing left out.
_MOE_RANGES: dict[str, tuple[int, int]] = {
    "experts": (1, 2**17),
    "top_k": (1, 2**17),
    "expert_ffn_hidden": (1, 2**24),
    "shared_experts": (0, 4096),
    "shared_ffn_hidden": (0, 2**24),
    "first_dense": (0, MOST_LAYERS),
    "every": (1, MOST_LAYERS),
    "groups": (1, 2**17),
    "top_groups": (1, 2**17),
}
_MLA_RANGES: dict[str, tuple[int, int]] = {
    "kv_lora_rank": (1, WIDEST),
    "qk_nope_head_dim": (1, 2**16),
    "v_head_dim": (1, 2**16),
    "qk_rope_head_dim": (0, 2**16),
    "q_lora_rank": (0, WIDEST),
}
_LINEAR_RANGES: dict[str, tuple[int, int]] = {
    "key_heads": (1, 2**16),
    "value_heads": (1, 2**16),
    "key_head_dim": (1, 2**16),
    "value_head_dim": (1, 2**16),
    "convolution": (1, 2**10),
}
_INDEXER_RANGES: dict[str, tuple[int, int]] = {"heads": (1, 2**16), "head_dim": (1, 2**16), "top_k": (1, 10**9)}


def in_range(key: str, value: object, least: int, most: int) -> None:
    """Raises `ModelError` naming the key unless the value is a whole number within these."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelError(f"{key}: {value!r} is not a whole number; expected an integer of at least {least}")
    if value < least:
        raise ModelError(f"{key}: {value} is too small; expected an integer of at least {least}")
    if value > most:
        raise ModelError(f"{key}: {value:.4g} is too large; expected at most {most:,}")


def one_of(key: str, value: object, accepted: tuple[str, ...]) -> None:
    """Raises `ModelError` naming the key unless the value is one of these."""
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
        for key, (least, most) in _MOE_RANGES.items():
            in_range(f"moe.{key}", getattr(self, key), least, most)
        if self.top_k > self.experts:
            raise ModelError(f"moe.top_k: {self.top_k} is more than the {self.experts} experts")
        if self.top_groups > self.groups:
            raise ModelError(f"moe.top_groups: {self.top_groups} is more than the {self.groups} groups")
        if self.experts % self.groups:
            raise ModelError(f"moe.groups: {self.groups} does not divide the {self.experts} experts")
        if self.capacity_factor is not None and not 0 < self.capacity_factor <= self.experts:
            accepted = f"more than 0 and at most the {self.experts} experts, or null for dropless"
            raise ModelError(f"moe.capacity_factor: {self.capacity_factor} is out of range; expected {accepted}")
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
        for key, (least, most) in _MLA_RANGES.items():
            in_range(f"mla.{key}", getattr(self, key), least, most)


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
        in_range("projector.merge", self.merge, 1, 10**6)
        if len(self.hidden) > _DEEPEST_PROJECTOR:
            raise ModelError(f"projector.hidden: has {len(self.hidden)} widths; expected at most {_DEEPEST_PROJECTOR}")
        for width in self.hidden:
            in_range("projector.hidden", width, 1, WIDEST)

    def shapes(self, patch: int, token: int) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each matrix, from patches of one width to tokens of another."""
        widths = (patch * self.merge, *self.hidden, token)
        return tuple(pairwise(widths))


@dataclass(frozen=True)
class LinearAttention:
    """A gated delta net (Yang et al. 2024, arXiv 2412.06464) in place of attention, as Qwen3-Next has it.

    A causal convolution over q, k and v, a state of key_head_dim × value_head_dim a value head, a gated norm.
    """

    key_heads: int
    value_heads: int
    key_head_dim: int
    value_head_dim: int
    convolution: int = 4  # positions that the convolution sees

    def __post_init__(self) -> None:
        for key, (least, most) in _LINEAR_RANGES.items():
            in_range(f"linear.{key}", getattr(self, key), least, most)
        if self.value_heads % self.key_heads:
            raise ModelError(
                f"linear.key_heads: {self.key_heads} does not divide the {self.value_heads} value_heads; "
                "expected a divisor"
            )

    @property
    def key_width(self) -> int:
        return self.key_heads * self.key_head_dim

    @property
    def value_width(self) -> int:
        return self.value_heads * self.value_head_dim

    @property
    def mixed_width(self) -> int:
        """Of q, k and v, which the convolution mixes over time."""
        return 2 * self.key_width + self.value_width

    @property
    def input_width(self) -> int:
        """Of the input projection: q, k, v, the output's gate, and two values a head for decay and step."""
        return self.mixed_width + self.value_width + 2 * self.value_heads


@dataclass(frozen=True)
class Indexer:
    """The lightning indexer of sparse attention (DeepSeek-V3.2, arXiv 2512.02556, section 2.1).

    `heads` queries of `head_dim` and one key a token score all earlier tokens; attention sees the best `top_k`.
    """

    heads: int
    head_dim: int
    top_k: int

    def __post_init__(self) -> None:
        for key, (least, most) in _INDEXER_RANGES.items():
            in_range(f"indexer.{key}", getattr(self, key), least, most)
