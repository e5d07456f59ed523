"""FLOPs of a token by the definitions that published TFLOP/s and MFU figures use; nothing about hardware or batch.

Only matrix products count: 2 FLOPs a parameter and token, plus attention's scores and values. Embedding lookup, norms,
softmax and the router are left out, as every published count does. Backward is twice forward. Two conventions differ
in attention, and are never to be mixed:

causal=False  every query against every key: 72·B·s·l·h²·(1 + s/(6h) + V/(12lh)) for GPT (Narayanan et al. 2021,
              arXiv 2104.04473, eq. 3 without its recompute; Korthikanti et al. 2022, arXiv 2205.05198, eq. 7).
causal=True   scores and values halved (FlashAttention's count; NVIDIA's published Megatron-Bridge figures).
"""

from dataclasses import dataclass
from typing import Literal

from llmsim.model import linear_attention, sparse_attention
from llmsim.model.architecture import Architecture, LayerKind, has_experts, is_linear
from llmsim.model.parameters import active_parameters, embedding_parameters

PASSES = 3  # one forward, two backward: the gradients of the input and of the weight each cost as much as the forward
Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True, slots=True)
class FlopLedger:
    """Forward FLOPs of one token, summed over layers (averaged over the tokens of a sequence where they differ)."""

    projections: float  # q, k, v and output (MLA: all low-rank products)
    scores: float  # q·k and probabilities·v; of linear attention the delta rule
    mlp: float  # dense MLPs
    experts: float  # the top_k routed experts
    shared_experts: float
    mtp: float  # multi-token prediction modules without their logits
    encoder: float  # the vision encoder's share, scores included
    logits: float  # of the model and of each MTP module

    @property
    def layers(self) -> float:
        """All but the logits: what full recomputation repeats."""
        return self.projections + self.scores + self.mlp + self.experts + self.shared_experts + self.mtp + self.encoder

    @property
    def forward(self) -> float:
        return self.layers + self.logits

    def executed(self, recompute: Recompute = "none") -> float:
        """Forward, backward and the recomputed part; logits and loss are never recomputed.

        `selective` repeats the attention core, `full` every layer (the factors 4/3 of the papers above).
        """
        repeated = {"none": 0.0, "selective": self.scores, "full": self.layers}[recompute]
        return PASSES * self.forward + repeated


def attention_pairs(seq_len: float, window: int = 0, causal: bool = True) -> float:
    """Query-key pairs of one sequence that count: s², or s·w under a window; causal halves the s² and drops w²/2."""
    if window and window < seq_len:
        return seq_len * window - (window**2 / 2 if causal else 0.0)
    return seq_len**2 / 2 if causal else seq_len**2


def projection_flops(arch: Architecture) -> float:
    """Forward FLOPs of one token in one layer's attention projections."""
    h, a = arch.hidden, arch.heads
    if arch.mla:
        mla = arch.mla
        rank, qk = mla.q_lora_rank, arch.qk_head_dim
        q = h * rank + rank * a * qk if rank else h * a * qk
        down = h * (mla.kv_lora_rank + mla.qk_rope_head_dim)
        up = mla.kv_lora_rank * a * (mla.qk_nope_head_dim + mla.v_head_dim)
        indexer = sparse_attention.indexer_projection_flops(arch.indexer, mla, h) if arch.indexer else 0.0
        return 2.0 * (q + down + up + a * mla.v_head_dim * h) + indexer
    return 2.0 * h * arch.head_dim * ((2 + arch.output_gate) * a + 2 * arch.kv_heads)


def score_flops(arch: Architecture, seq_len: float, window: int = 0, causal: bool = True) -> float:
    """Forward FLOPs of one token in one layer's scores and values, averaged over the sequence."""
    if arch.indexer:
        return sparse_attention.sparse_score_flops(arch, seq_len)
    if arch.window_chunks and 0 < window < seq_len:
        seq_len, window = window, 0  # each chunk is a sequence of its own
    pairs = attention_pairs(seq_len, window, causal) / seq_len
    return 2.0 * arch.heads * (arch.qk_head_dim + arch.v_head_dim) * pairs


def mlp_flops(arch: Architecture, width: int) -> float:
    """Forward FLOPs of one token in an MLP of this width."""
    return 2.0 * arch.mlp_matrices * arch.hidden * width


def flop_ledger(arch: Architecture, seq_len: int, causal: bool = True) -> FlopLedger:
    """Forward FLOPs of one token at this sequence length, by part.

    An encoder (`arch.causal` false) never has its attention halved. The parts of MTP modules are in `mtp`.
    """
    causal = causal and arch.causal
    kinds, moe = arch.layer_kinds(), arch.moe
    moe_layers = sum(map(has_experts, kinds))
    linear_layers = sum(map(is_linear, kinds))
    encoder = 0.0
    if arch.encoder:
        encoder = _encoder_flops(arch) / seq_len
    mtp = 0.0
    if arch.mtp_layers:
        one_layer = _layer_flops(arch, arch.mtp_kind(), seq_len, causal)
        mtp = arch.mtp_layers * (one_layer + 2.0 * 2 * arch.hidden**2)
    return FlopLedger(
        projections=(arch.layers - linear_layers) * projection_flops(arch)
        + (linear_layers * linear_attention.projection_flops(arch.linear, arch.hidden) if arch.linear else 0.0),
        scores=sum(
            score_flops(arch, seq_len, window, causal)
            for kind, window in zip(kinds, arch.layer_windows())
            if not is_linear(kind)
        )
        + (linear_layers * linear_attention.state_flops(arch.linear) if arch.linear else 0.0),
        mlp=(arch.layers - moe_layers) * mlp_flops(arch, arch.ffn_hidden),
        experts=moe_layers * moe.top_k * mlp_flops(arch, moe.expert_ffn_hidden) if moe else 0.0,
        shared_experts=moe_layers * mlp_flops(arch, moe.shared_ffn_hidden) if moe else 0.0,
        mtp=mtp,
        encoder=encoder,
        logits=(1 + arch.mtp_layers) * _logit_flops(arch),
    )


def _encoder_flops(arch: Architecture) -> float:
    """Forward FLOPs of the images of one sequence."""
    inner, positions = arch.encoder, arch.image_positions
    assert inner is not None
    one_image = flop_ledger(inner, positions, causal=False).forward * positions
    projected = sum(2.0 * k * n for k, n in arch.projector.shapes(inner.hidden, arch.hidden))
    return arch.encoder_images * one_image + arch.image_tokens * projected


def _layer_flops(arch: Architecture, kind: LayerKind, seq_len: int, causal: bool) -> float:
    width = arch.ffn_hidden
    if has_experts(kind) and arch.moe:
        width = arch.moe.top_k * arch.moe.expert_ffn_hidden + arch.moe.shared_ffn_hidden
    if is_linear(kind) and arch.linear:
        attention = linear_attention.projection_flops(arch.linear, arch.hidden)
        attention += linear_attention.state_flops(arch.linear)
    else:
        attention = projection_flops(arch) + score_flops(arch, seq_len, 0, causal)
    return attention + mlp_flops(arch, width)


def _logit_flops(arch: Architecture) -> float:
    """The output matrix, or for a vision encoder its patch embedding, which is a product too."""
    return 2.0 * arch.hidden * (arch.vocab + arch.patch_inputs)


def model_flops_per_token(arch: Architecture, seq_len: int, causal: bool = True) -> float:
    """Model FLOPs of one token in training: forward and backward, nothing recomputed. The numerator of MFU."""
    return flop_ledger(arch, seq_len, causal).executed("none")


def hardware_flops_per_token(
    arch: Architecture, seq_len: int, recompute: Recompute = "none", causal: bool = True
) -> float:
    """Executed FLOPs of one token in training, recomputation included. The numerator of HFU.

    With causal=False and `full` this is Narayanan et al. 2021 eq. 3: 96·B·s·l·h²·(1 + s/(6h) + V/(16lh)). With
    `selective` the attention core runs once more, 72·B·s·l·h²·(1 + s/(4.5h) + V/(12lh)); Korthikanti et al. 2022 print
    s/(3h) there and their HFU follows it, 0.9% (1T) to 3.4% (22B) above the FLOPs that are executed.
    """
    return flop_ledger(arch, seq_len, causal).executed(recompute)


def six_n_flops_per_token(arch: Architecture, seq_len: int, embedding: bool = True) -> float:
    """6N + 12·L·heads·head_dim·s (PaLM, arXiv 2204.02311, appendix B): active parameters, attention not halved.

    `embedding` false leaves the input embedding and positions out of N (a tied matrix stays: the head multiplies it).
    """
    n = active_parameters(arch, seq_len)
    if not embedding:
        edge = embedding_parameters(arch, seq_len)
        n -= edge.total - (edge.sharded if arch.tied_embeddings else 0)
    layers = sum(not is_linear(kind) for kind in arch.layer_kinds())
    return 6.0 * n + 12.0 * layers * arch.heads * (arch.qk_head_dim + arch.v_head_dim) / 2 * seq_len
