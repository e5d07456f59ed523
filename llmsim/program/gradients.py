"""What follows the backward passes: gradient reduction over data parallel ranks, the optimizer, parameter gathering."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from llmsim.model.work import Communication, Gemm, MemoryBound, Step

DTYPE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """Bytes a parameter moves in one optimizer step, beside its gradient and the copy that computes.

    `state`: fp32 values that are read and written (16-bit ones count a half, 8-bit ones a quarter); `kernels`:
    launches for all parameters when not fused into one.
    """

    state: float
    kernels: int


# Adam: master weight and two moments. Adafactor keeps row and column sums, Muon one momentum (its orthogonalisation is
# matrix arithmetic: `newton_schulz`). SGD with momentum: master weight and momentum.
OPTIMIZERS = {
    "adam": OptimizerState(3, 12),
    "adam16bit": OptimizerState(2, 12),
    "adam8bit": OptimizerState(1.5, 12),
    "sgd": OptimizerState(2, 4),
    "adafactor": OptimizerState(1, 14),
    "muon": OptimizerState(2, 12),
}


@dataclass(frozen=True, slots=True)
class Shares:
    """Parameters that one rank reduces, by the group that reduces them: dense over `dp`, experts over `edp`."""

    dense: float
    expert: float

    def __add__(self, other: "Shares") -> "Shares":
        return Shares(self.dense + other.dense, self.expert + other.expert)

    @property
    def total(self) -> float:
        return self.dense + self.expert


def reduction_steps(
    shares: Shares, grad_bytes: int, scatter: bool, shard: tuple[float, float] | None = None
) -> list[Step]:
    """Gradient reduction of one bucket: a reduce-scatter, of which each rank gets its share, or an all-reduce.

    shard: ranks of a shard group, of dense parameters and of experts, where states are sharded within those only
    (HSDP): a reduce-scatter among them, and an all-reduce of each share over the ranks that hold the same one.
    """
    operation = "reduce_scatter" if scatter else "all_reduce"
    if scatter and shard is not None:
        dense, expert = shard
        reductions = [("reduce_scatter", "shard", shares.dense), ("all_reduce", "replica", shares.dense / dense)]
        reductions += [("reduce_scatter", "eshard", shares.expert), ("all_reduce", "ereplica", shares.expert / expert)]
    else:
        reductions = [(operation, "dp", shares.dense), (operation, "edp", shares.expert)]
    return [
        Step(f"gradient {name.replace('_', '-')}", Communication(name, group, size * grad_bytes), "dp", "backward")
        for name, group, size in reductions
        if size > 0
    ]


_ITERATIONS = 5  # of Newton and Schulz, as Muon is used
_MATRICES = 4  # of a layer: a matrix is never cut


def in_messages(steps: Sequence[Step], most: float | None, parts: int) -> list[Step]:
    """The communications of `parts` layers in equal messages of some `most` bytes, or a matrix (None: each whole)."""
    if most is None:
        return list(steps)
    result: list[Step] = []
    for step in steps:
        count = min(ceil(step.work.size / most), _MATRICES * parts)
        result += [replace(step, work=replace(step.work, size=step.work.size / count))] * count
    return result


def gather_steps(shares: Shares, param_bytes: int, group: str = "dp", expert_group: str = "edp") -> list[Step]:
    """All ranks get the parameters that the sharded optimizer has updated; over which groups they are sharded."""
    return [
        Step("parameter all-gather", Communication("all_gather", group, size * param_bytes), "dp", "update")
        for group, size in ((group, shares.dense), (expert_group, shares.expert))
        if size > 0
    ]


def optimizer_steps(
    parameters: float, optimizer: str, grad_bytes: int, param_bytes: int, fused: bool, tensors: int, unscale: bool
) -> list[Step]:
    """The passes over `parameters` elements (in `tensors` tensors) that this rank updates, gradient norm first.

    Megatron-LM's and apex's mixed-precision optimizers read and write whole buffers in each pass: norm, clipping,
    update of the fp32 master weights and moments, copy to the parameters that compute, and clearing of the gradients.
    With fp16 the gradients are unscaled (and checked) first. Returns [what precedes the norm's all-reduce, the rest].
    """
    kind = OPTIMIZERS[optimizer]
    launches = 1 if fused else tensors
    norm_bytes = grad_bytes * (3 if unscale else 1)
    passes = [
        ("gradient norm", norm_bytes, 2 * launches),
        ("gradient clipping", 2 * grad_bytes, launches),
        (optimizer, grad_bytes + 8 * kind.state, launches if fused else kind.kernels * tensors),
        ("parameter copy", 4 + param_bytes if param_bytes < 4 else 0, launches),
        ("gradient clearing", grad_bytes, launches),
    ]
    return [
        Step(name, MemoryBound(parameters * size, kernels), "compute", "update")
        for name, size, kernels in passes
        if size
    ]


def newton_schulz(matrices: Mapping[tuple[int, int, bool], int], ranks: int, expert_ranks: int) -> list[Step]:
    """Muon's orthogonalisation of each hidden matrix's momentum (Jordan et al., kellerjordan.github.io/posts/muon).

    Five times A = X·Xᵀ, B = b·A + c·A², X = a·X + B·X in bf16, with the smaller side of X first. matrices: how many of
    (rows, columns, whether of an expert) this rank holds, as tensor parallelism leaves them: Megatron-Core's blockwise
    mode. Its layer-wise optimizer gives each of `ranks` (`expert_ranks` for experts) whole ones; the fullest counts.
    """
    steps = []
    for (rows, columns, expert), count in sorted(matrices.items()):
        small, large = sorted((rows, columns))
        own = ceil(count / (expert_ranks if expert else ranks))
        products = (Gemm(small, small, large, own), Gemm(small, small, small, own), Gemm(small, large, small, own))
        steps += [Step("Newton-Schulz", product, "compute", "update") for product in products] * _ITERATIONS
    return steps


def buckets(sizes: Sequence[Shares], least: float) -> list[int]:
    """How many parts (in backward order) each bucket takes, so that it holds at least `least` parameters."""
    counts, filled, taken = [], 0.0, 0
    for share in sizes:
        filled += share.total
        taken += 1
        if filled >= least:
            counts.append(taken)
            filled, taken = 0.0, 0
    if taken:
        counts.append(taken)
    return counts
