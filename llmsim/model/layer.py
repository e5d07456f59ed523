"""One transformer layer on one rank: the kernels and communications of its passes, free of any hardware.

A layer is a chain of operators (norm, attention, residual, norm, MLP or MoE, residual); `assemble` turns it into the
steps of forward and backward. The order and the collectives are Megatron-LM's (Shoeybi et al. 2019, arXiv 1909.08053;
Korthikanti et al. 2022, arXiv 2205.05198).
"""

from collections.abc import Iterable
from dataclasses import replace

from llmsim.model import traffic
from llmsim.model.architecture import Architecture, LayerKind, has_experts, is_linear
from llmsim.model.attention import attention_chain
from llmsim.model.exchange import row_exit
from llmsim.model.linear_attention import linear_chain
from llmsim.model.mlp import mlp_chain
from llmsim.model.moe import moe_chain
from llmsim.model.operators import Fixed, LayerSteps, Linear, Operator, Rerun, assemble, elementwise, exchange, rerun
from llmsim.model.shard import ALL_FUSIONS, NO_FUSIONS, Shard
from llmsim.model.vocabulary import embedding_steps, head_steps, mtp_steps, vocab_on_rank
from llmsim.model.work import Attention, Communication, Gemm, MemoryBound, Step

__all__ = [
    "ALL_FUSIONS",
    "NO_FUSIONS",
    "LayerSteps",
    "Shard",
    "communication_bytes",
    "embedding_steps",
    "head_steps",
    "layer_flops",
    "layer_steps",
    "mtp_steps",
    "step_flops",
    "vocab_on_rank",
]


# Products that read the output of a norm at the head of a branch; the router is in 16 bits.
_READ_NORM = ("qkv", "linear_in", "q", "q_down", "kv_down", "fc1", "shared_fc1")


def layer_steps(arch: Architecture, shard: Shard, kind: LayerKind = "dense", window: int | None = None) -> LayerSteps:
    """What one layer does on one rank for one micro-batch.

    `window`: keys a query may see (`arch.layer_windows()` has it for each layer); None is the first layer's.
    """
    window = arch.layer_windows()[0] if window is None else window
    chain = _parallel_chain if arch.parallel_block and kind == "dense" else _chain
    return assemble(chain(arch, shard, kind, window), shard)


def _chain(arch: Architecture, shard: Shard, kind: LayerKind, window: int) -> list[Operator]:
    mlp = moe_chain(arch, shard) if has_experts(kind) else mlp_chain(arch, shard, arch.ffn_hidden)
    linear = is_linear(kind)
    attention = linear_chain(arch, shard) if linear else attention_chain(arch, shard, window)
    return [
        *_sublayer(arch, shard, "1", attention, bool(arch.output_bias) and not linear),
        *_sublayer(arch, shard, "2", mlp, bool(arch.mlp_bias) and not has_experts(kind)),
    ]


def _sublayer(arch: Architecture, shard: Shard, number: str, inner: list[Operator], bias: bool) -> list[Operator]:
    """Norm, the sublayer, bias-dropout-residual; Gemma's form norms the output too."""
    rows, h = shard.local_tokens, arch.hidden
    after = [_norm(arch, shard, f"post_norm{number}")] if arch.norms_per_layer >= 4 else []
    residual = elementwise(f"residual{number}", *traffic.residual(shard, rows, h, bias))
    norm = _joining_norm(arch, shard, f"norm{number}")
    return [norm, *inner, *_rerun_norm(shard, norm, inner), *after, residual]


def _rerun_norm(shard: Shard, norm: Fixed, inner: list[Operator]) -> list[Operator]:
    """The norm again before the backward of a branch, with the conversions of its output for those that read it."""
    remade = [operator for step in inner if isinstance(step, Rerun) for operator in step.operators]
    linears = (step for step in inner if isinstance(step, Linear) and step not in remade)
    readers = [linear for linear in linears if linear.name in _READ_NORM]
    return rerun(shard, "layernorm", [norm], readers)


def _norm(arch: Architecture, shard: Shard, name: str) -> Fixed:
    return elementwise(name, *traffic.norm(arch, shard, shard.local_tokens, arch.hidden))


def _joining_norm(arch: Architecture, shard: Shard, name: str) -> Fixed:
    """A norm at the head of a branch: its backward ends with the sum of the branch's and the residual's gradients."""
    norm = _norm(arch, shard, name)
    joined = Step("gradient_sum", traffic.gradient_sum(shard, shard.local_tokens, arch.hidden))
    return Fixed(norm.forward, (*norm.backward, joined))


def _parallel_chain(arch: Architecture, shard: Shard, kind: LayerKind, window: int) -> list[Operator]:
    """Attention and MLP side by side (GPT-J, PaLM, NeoX): one reduction over tp for both, one gather when the norm
    is shared."""
    shared = arch.norms_per_layer == 1
    attention = attention_chain(arch, shard, window, exchanged=False)
    mlp = mlp_chain(arch, shard, arch.ffn_hidden, entry=not shared, leave=False)
    if shared and shard.split_sequence:
        # Gathered once: the MLP's weight gradient comes first in the backward, and gathers for both.
        first, up = attention[0], mlp[0]
        assert isinstance(first, Linear) and isinstance(up, Linear)
        mlp[0] = replace(up, regather=first.regather)
        attention[0] = replace(first, regather=None)
    norms = [_joining_norm(arch, shard, "norm1")]
    second = [] if shared else [_joining_norm(arch, shard, "norm2")]
    leave = row_exit(shard, arch.hidden)
    rows, h = shard.local_tokens, arch.hidden
    both = elementwise("branch_sum", traffic.gradient_sum(shard, shard.tokens, h), None)
    chain: list[Operator] = [*norms, *attention, *second, *mlp]
    chain += [*rerun(shard, "layernorm", [*norms, *second], [attention[0], mlp[0]]), both]
    if leave:
        chain.append(exchange("block_exit", leave["exit"], leave.get("exit_grad")))
    bias = bool(arch.output_bias or arch.mlp_bias)
    chain.append(elementwise("residual", *traffic.residual(shard, rows, h, bias)))
    return chain


def step_flops(steps: Iterable[Step]) -> float:
    """FLOPs of the matrix products, attention cores and delta rules of these steps (elementwise work has none)."""
    return sum(step.work.flops for step in steps if isinstance(step.work, Gemm | Attention | MemoryBound))


def communication_bytes(steps: Iterable[Step]) -> dict[tuple[str, str], float]:
    """Bytes handed to collectives, by (group, operation)."""
    total: dict[tuple[str, str], float] = {}
    for step in steps:
        if isinstance(step.work, Communication):
            key = (step.work.group, step.work.operation)
            total[key] = total.get(key, 0.0) + step.work.size
    return total


def layer_flops(arch: Architecture, shard: Shard, kind: LayerKind = "dense") -> dict[str, float]:
    """FLOPs of one layer and micro-batch on one rank: `forward`, `recompute`, `backward` (input), `weight`."""
    steps = layer_steps(arch, shard, kind)
    total = {"forward": step_flops(steps.forward), "recompute": 0.0, "backward": 0.0, "weight": 0.0}
    for step in steps.backward:
        total[step.phase] += step_flops((step,))
    return total
