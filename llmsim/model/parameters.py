"""Parameters, counted to the unit: a ledger for the whole model, and each part by how parallelism splits it.

Parts of a layer (h hidden, d head_dim, a heads, k kv_heads, f ffn width):
attention h·a·d + 2·h·k·d + a·d·h; MLP 2·h·f or 3·h·f when gated; router h·experts; biases and norms by their widths.
With GPT's choices this is Narayanan et al. 2021 (arXiv 2104.04473) eq. 2: 12lh²(1 + 13/(12h) + (V+s)/(12lh)), plus 2h
for the final norm.
"""

from dataclasses import dataclass
from typing import get_args

from llmsim.model.architecture import Architecture, LayerKind, has_experts, is_linear
from llmsim.model.linear_attention import linear_parameters
from llmsim.model.sparse_attention import indexer_parameters


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """Parameters of one layer, by what shards them; whole layer, not yet divided by any group size."""

    attention_sharded: int  # split by TP: q, k, v (or MLA up) projections with their biases, output projection
    mlp_sharded: int  # split by TP: the dense MLP, or the shared expert of an MoE layer
    experts: int  # split by EP (and expert TP): all experts together
    router: int  # replicated: router weights, its biases, the shared expert's gate
    replicated: int  # norms, biases of row-parallel outputs, MLA down projections
    kv_sharded: int  # the part of attention_sharded that holds k and v; TP beyond kv_heads replicates it
    one_expert: int  # parameters of one of the experts; 0 in a dense layer
    active_experts: int  # parameters of the top_k experts one token passes through

    @property
    def total(self) -> int:
        return self.attention_sharded + self.mlp_sharded + self.experts + self.router + self.replicated

    @property
    def active(self) -> int:
        return self.total - self.experts + self.active_experts

    def on_rank(self, tp: int = 1, ep: int = 1, expert_tp: int = 1, kv_heads: int = 0) -> tuple[float, float]:
        """(non-expert, expert) parameters that one rank holds.

        When `tp` exceeds `kv_heads` each rank keeps one whole kv head (Megatron, vLLM). `kv_heads` 0: always divisible.
        """
        kv_share = max(1 / tp, 1 / kv_heads) if kv_heads else 1 / tp
        q_and_output = self.attention_sharded - self.kv_sharded
        dense = (q_and_output + self.mlp_sharded) / tp + self.kv_sharded * kv_share + self.router + self.replicated
        return dense, self.experts / (ep * expert_tp)


@dataclass(frozen=True, slots=True)
class EdgeParameters:
    """Parameters before the first or after the last layer: `sharded` by TP along the vocabulary, and `replicated`."""

    sharded: int
    replicated: int

    @property
    def total(self) -> int:
        return self.sharded + self.replicated


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the ledger: `count` parameters over all layers, of which one token uses `active`."""

    name: str
    count: int
    active: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where the parameters of a model are. Row names are stable; rows that are zero are left out."""

    rows: tuple[Row, ...]

    @property
    def total(self) -> int:
        return sum(row.count for row in self.rows)

    @property
    def active(self) -> int:
        """Parameters that one token passes through: top_k experts of each MoE layer, all else in full."""
        return sum(row.active for row in self.rows)

    def __getitem__(self, name: str) -> int:
        return sum(row.count for row in self.rows if row.name == name)


@dataclass(frozen=True, slots=True)
class _Attention:
    """The attention of one layer. Column-parallel biases are with their matrices; row-parallel ones are replicated."""

    q_and_output: int
    kv: int
    replicated: int


def _attention(arch: Architecture, kind: LayerKind) -> _Attention:
    if is_linear(kind) and arch.linear:
        split, whole = linear_parameters(arch.linear, arch.hidden)
        return _Attention(split, 0, whole)
    h, a = arch.hidden, arch.heads
    output = a * arch.v_head_dim * h
    replicated = h * arch.output_bias
    sinks = a * arch.attention_sinks
    if arch.mla:
        mla, qk = arch.mla, arch.qk_head_dim
        rank = mla.q_lora_rank
        q = rank * a * qk if rank else h * a * qk
        replicated += (h * rank + rank) if rank else 0
        replicated += h * (mla.kv_lora_rank + mla.qk_rope_head_dim) + mla.kv_lora_rank
        if arch.qkv_bias:
            replicated += rank + mla.kv_lora_rank + mla.qk_rope_head_dim
        if arch.indexer:
            replicated += indexer_parameters(arch.indexer, mla, h)
        # MLA has no kv heads to run out of: its up projections divide by TP as heads do.
        kv_up = mla.kv_lora_rank * a * (mla.qk_nope_head_dim + mla.v_head_dim)
        return _Attention(q + kv_up + output + sinks, 0, replicated)
    width, kv_width = a * arch.head_dim, arch.kv_heads * arch.head_dim
    q = (h * width + width * arch.qkv_bias) * (1 + arch.output_gate)
    kv = 2 * (h * kv_width + kv_width * arch.qkv_bias)
    if arch.relative_positions:
        q += h * width
    if arch.qk_norm and arch.qk_norm_over == "head":
        replicated += 2 * arch.head_dim * (1 + arch.norm_bias)
    elif arch.qk_norm:  # gains go with their heads
        q += width * (1 + arch.norm_bias)
        kv += kv_width * (1 + arch.norm_bias)
    return _Attention(q + output + sinks, kv, replicated)


def _mlp(arch: Architecture, width: int) -> tuple[int, int]:
    """(matrices and column biases, row-parallel bias) of an MLP of this width."""
    up = arch.mlp_matrices - 1
    return arch.mlp_matrices * arch.hidden * width + up * width * arch.mlp_bias, arch.hidden * arch.mlp_bias


def norm_parameters(arch: Architecture) -> int:
    """Parameters of one norm over the hidden width."""
    return arch.hidden * (1 + arch.norm_bias)


def layer_parameters(arch: Architecture, kind: LayerKind) -> LayerParameters:
    """Parameters of one layer of this kind."""
    attention = _attention(arch, kind)
    replicated = attention.replicated + arch.norms_per_layer * norm_parameters(arch)
    router = experts = one_expert = active = 0
    if has_experts(kind) and arch.moe:
        moe = arch.moe
        one_expert = sum(_mlp(arch, moe.expert_ffn_hidden))
        experts, active = moe.experts * one_expert, moe.top_k * one_expert
        router = arch.hidden * moe.experts + moe.experts * moe.router_bias + arch.hidden * moe.shared_gate
        mlp, mlp_bias = _mlp(arch, moe.shared_ffn_hidden) if moe.shared_ffn_hidden else (0, 0)
    else:
        mlp, mlp_bias = _mlp(arch, arch.ffn_hidden)
    return LayerParameters(
        attention_sharded=attention.q_and_output + attention.kv,
        mlp_sharded=mlp,
        experts=experts,
        router=router,
        replicated=replicated + mlp_bias,
        kv_sharded=attention.kv,
        one_expert=one_expert,
        active_experts=active,
    )


def position_rows(arch: Architecture, max_positions: int | None = None) -> int:
    """Rows of the learned position table: the model's own, or more where the sequence is longer; 0 if not learned."""
    return max(arch.max_positions, max_positions or 0) if arch.position == "learned" else 0


def embedding_parameters(arch: Architecture, max_positions: int | None = None) -> EdgeParameters:
    """Token or patch embedding, learned positions (`max_positions`: the sequence length) and BLOOM's embedding norm."""
    replicated = position_rows(arch, max_positions) * arch.hidden + norm_parameters(arch) * arch.embedding_norm
    if arch.patch_inputs:
        replicated += arch.patch_inputs * arch.hidden + arch.hidden * (arch.patch_bias + arch.class_token)
    return EdgeParameters(arch.vocab * arch.hidden, replicated)


def head_parameters(arch: Architecture, copy_tied: bool = False) -> EdgeParameters:
    """Final norm and output matrix, with its bias.

    A tied matrix counts 0 here, unless `copy_tied`: a pipeline's last stage keeps its own copy of the embedding.
    """
    matrix = 0 if arch.tied_embeddings and not copy_tied else arch.vocab * arch.hidden
    return EdgeParameters(matrix + arch.vocab * arch.head_bias, norm_parameters(arch) * arch.final_norm)


def mtp_parameters(arch: Architecture) -> EdgeParameters:
    """What one MTP module adds beside its layer (DeepSeek-V3, arXiv 2412.19437 §2.2): the 2h → h projection and three
    norms; embedding and head are shared with the main model."""
    return EdgeParameters(2 * arch.hidden**2, 3 * norm_parameters(arch))


def projector_parameters(arch: Architecture) -> EdgeParameters:
    """The projector's matrices; tensor parallelism splits all but the biases of those that it splits by rows (every
    second one)."""
    assert arch.encoder is not None
    bias = arch.projector.bias
    shapes = arch.projector.shapes(arch.encoder.hidden, arch.hidden)
    sharded = sum(inputs * outputs for inputs, outputs in shapes)
    sharded += sum(outputs for _, outputs in shapes[::2]) * bias
    return EdgeParameters(sharded, sum(outputs for _, outputs in shapes[1::2]) * bias)


def parameter_ledger(arch: Architecture, max_positions: int | None = None) -> Ledger:
    """All parameters of the model by name. `max_positions` is the sequence length, for learned positions."""
    h, kinds = arch.hidden, arch.layer_kinds()
    kinds += (arch.mtp_kind(),) * arch.mtp_layers
    norms = norm_parameters(arch)
    embedding = embedding_parameters(arch, max_positions)
    positions = position_rows(arch, max_positions) * h
    counts: dict[str, list[int]] = {}

    def add(name: str, count: int, active: int | None = None) -> None:
        row = counts.setdefault(name, [0, 0])
        row[0] += count
        row[1] += count if active is None else active

    add("embedding", embedding.sharded)
    add("positions", positions)
    add("patches", embedding.replicated - positions - norms * arch.embedding_norm)
    add("embedding norm", norms * arch.embedding_norm)
    for kind in get_args(LayerKind):
        layers = kinds.count(kind)
        if not layers:
            continue
        part = layer_parameters(arch, kind)
        layer_norms = arch.norms_per_layer * norms
        mlp_bias = h * arch.mlp_bias * bool(part.mlp_sharded)
        add(
            "linear attention" if is_linear(kind) else "attention",
            layers * (part.attention_sharded + part.replicated - layer_norms - mlp_bias),
        )
        add("shared experts" if has_experts(kind) else "mlp", layers * (part.mlp_sharded + mlp_bias))
        add("router", layers * part.router)
        add("experts", layers * part.experts, layers * part.active_experts)
        add("norms", layers * layer_norms)
    add("mtp", arch.mtp_layers * mtp_parameters(arch).total)
    head = head_parameters(arch)
    add("final norm", head.replicated)
    add("head", head.sharded)
    if arch.encoder:
        encoder = parameter_ledger(arch.encoder, arch.image_positions)
        add("encoder", encoder.total, encoder.active)
        add("projector", projector_parameters(arch).total)
    return Ledger(tuple(Row(name, count, active) for name, (count, active) in counts.items() if count))


def parameters(arch: Architecture, max_positions: int | None = None) -> int:
    """Total number of parameters."""
    return parameter_ledger(arch, max_positions).total


def active_parameters(arch: Architecture, max_positions: int | None = None) -> int:
    """Parameters that one token passes through."""
    return parameter_ledger(arch, max_positions).active
