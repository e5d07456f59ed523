"""How one rank computes its part of a layer: sizes of the micro-batch, splits, precision and fused kernels."""

from dataclasses import dataclass

from llmsim.errors import ModelError, nearest
from llmsim.model.architecture import Architecture

#: What can be fused into one kernel. Each name is one `fused` switch of a scenario.
ALL_FUSIONS = frozenset(
    {
        "norm",  # LayerNorm/RMSNorm in one kernel
        "bias_activation",  # bias + GELU in one kernel
        "swiglu",  # gate, SiLU and product in one kernel
        "softmax",  # scale + mask + softmax of unfused attention in one kernel
        "bias_dropout_residual",  # bias + dropout + residual add in one kernel
        "rope",  # rotary embedding of q and k in one kernel
        "cross_entropy",  # softmax, loss and gradient on the half-precision logits
        "qkv_layout",  # q, k and v reach flash attention as the projection leaves them, without copies
        "flat_gradients",  # sharded gradients are reduced as they are; FSDP1 flattens, casts and scales them first
        "loss_in_place",  # an unfused loss that overwrites the logits: memory only
        "grad_accumulation",  # weight-gradient GEMMs add into the fp32 gradient buffer themselves
        "moe_permute",  # permutation and weighted un-permutation of tokens in one kernel each
        "optimizer",  # multi-tensor optimizer step (not part of a layer)
    }
)
NO_FUSIONS: frozenset[str] = frozenset()

#: Parts of a layer that selective recomputation can make again, as Megatron-Core's `recompute_modules` names them.
RECOMPUTE_MODULES = ("core_attn", "layernorm", "mla_up_proj", "mlp", "moe", "moe_act", "shared_experts")
# Bytes of one value of an activation that is kept in a narrower format than it was computed in.
STORED = {"fp8": 1.0, "e5m6": 1.5}

_ELEMENT = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 2, "nvfp4": 2}
# Bytes of one operand of a narrow product, scales included: NVFP4 has one 8-bit scale for 16 values.
_NARROW = {"fp8": 1.0, "nvfp4": 0.5625}
_GRADIENT = {"fp32": 4, "fp16": 2, "bf16": 2}
_CHOICES = {
    "precision": tuple(_ELEMENT),
    "grad_dtype": tuple(_GRADIENT),
    "attention": ("flash", "unfused"),
    "recompute": ("none", "selective", "full"),
    "cp_kind": ("ring", "all_gather", "ulysses"),
    "dispatch": ("all_to_all", "deduplicated"),
    "expert_kernels": ("separate", "fused"),
}


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's share of a layer. Counts are whole numbers of at least 1; raises `ModelError` for unknown choices.

    `expert_tp` splits each expert's matrices; None means 1 with sequence parallelism (each TP rank routes its own
    tokens) and `tp` without it (TP ranks hold the same tokens, so each computes a slice of every expert).
    `regather` false: inputs that sequence parallelism has gathered are kept whole for the weight gradient.
    `dispatch` deduplicated: a token crosses to each node once, whatever experts it has there (DeepEP, HybridEP);
    `dispatch_fp8`: it goes to them in fp8. `imbalance` is the load of the busiest rank's experts over the mean.
    `expert_kernels` separate: a product, a conversion and a bias for each expert, and an activation of its own (TE's
    GroupedLinear); fused: one kernel for all experts, which activates and converts what it writes (cuDNN's of 2026).
    `accumulate` false: weight gradients are written once in compute precision (FSDP and ZeRO reduce them at once),
    not added into a gradient buffer.
    `host_experts`: seconds that a GPU waits for its host in a layer of separate experts, forward and backward.
    `modules`: what selective recomputation makes again, of `RECOMPUTE_MODULES`.
    `activation_input`, `attention_output`: the format of `STORED` in which the input of an MLP's activation and the
    output of flash attention are kept; None: as computed.
    `loss_chunks`: the head takes so many parts of the tokens one after the other, and no logits are kept.
    """

    micro_batch: int
    seq_len: int
    tp: int = 1
    cp: int = 1
    ep: int = 1
    sequence_parallel: bool = False
    precision: str = "bf16"
    attention: str = "flash"
    fusions: frozenset[str] = ALL_FUSIONS
    dropout: bool = False
    recompute: str = "none"
    tp_overlap: bool = False
    async_tp_grad: bool = True
    regather: bool = True
    grad_dtype: str = "fp32"
    cp_kind: str = "ring"
    dispatch: str = "all_to_all"
    dispatch_fp8: bool = False
    expert_kernels: str = "separate"
    host_experts: tuple[float, float] = (0.0, 0.0)
    flash_version: int = 2
    expert_tp: int | None = None
    imbalance: float = 1.0
    accumulate: bool = True
    loss_chunks: int = 1
    modules: frozenset[str] = frozenset({"core_attn"})
    activation_input: str | None = None
    attention_output: str | None = None

    def __post_init__(self) -> None:
        for key in ("micro_batch", "seq_len", "tp", "cp", "ep", "loss_chunks"):
            if getattr(self, key) < 1:
                raise ModelError(f"{key}: {getattr(self, key)} is too small; expected at least 1")
        for key, accepted in _CHOICES.items():
            value = getattr(self, key)
            if value not in accepted:
                raise ModelError(f"{key}: {value!r} is not known; expected one of {', '.join(accepted)}")
        for name in sorted(self.fusions - ALL_FUSIONS):
            listed = nearest(name, ALL_FUSIONS) or f"; expected among {', '.join(sorted(ALL_FUSIONS))}"
            raise ModelError(f"fused: no fusion is called {name!r}{listed}")
        if self.cp > 1 and self.attention == "unfused" and self.cp_kind == "ring":
            raise ModelError("attention: unfused attention has no ring form; choose flash, or cp_kind all_gather")

    @property
    def element(self) -> int:
        """Bytes of one activation value; activations stay bf16 when the GEMMs are fp8."""
        return _ELEMENT[self.precision]

    @property
    def gradient(self) -> int:
        """Bytes of one value of the gradient buffer."""
        return _GRADIENT[self.grad_dtype]

    @property
    def core_precision(self) -> str:
        """Precision of attention, router and logits: fp8 and NVFP4 training keep these in bf16."""
        return "bf16" if self.narrow else self.precision

    @property
    def narrow(self) -> bool:
        """Whether the operands of linear layers are converted to fp8 or NVFP4."""
        return self.precision in _NARROW

    @property
    def operand(self) -> float:
        """Bytes of one value as a linear layer multiplies it."""
        return _NARROW.get(self.precision, self.element)

    @property
    def gathered_element(self) -> float:
        """Bytes of one value in a sequence-parallel all-gather: narrow tensors are gathered after the cast."""
        return self.operand

    @property
    def split_sequence(self) -> bool:
        """Whether norms, dropouts and residuals work on 1/tp of the tokens (Korthikanti et al. 2022, section 4.2.2)."""
        return self.sequence_parallel and self.tp > 1

    @property
    def positions(self) -> float:
        """Positions of one sequence on this rank's context-parallel share."""
        return self.seq_len / self.cp

    @property
    def tokens(self) -> float:
        """Tokens that a linear layer of this rank multiplies."""
        return self.micro_batch * self.seq_len / self.cp

    @property
    def local_tokens(self) -> float:
        """Tokens that this rank's norms, dropouts and residuals see."""
        return self.tokens / self.tp if self.split_sequence else self.tokens

    @property
    def expert_split(self) -> int:
        """Ranks that share the matrices of one expert."""
        if self.expert_tp is not None:
            return self.expert_tp
        return 1 if self.split_sequence else self.tp

    def recomputes(self, module: str) -> bool:
        """Whether this module, and not the whole layer, is made again in the backward."""
        return self.recompute == "selective" and module in self.modules

    def fused(self, name: str) -> bool:
        return name in self.fusions

    def kv_heads(self, arch: Architecture) -> float:
        """Key/value heads on one rank; a rank never holds less than one."""
        return max(1.0, arch.core_kv_heads / self.tp)
