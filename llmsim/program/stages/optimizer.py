"""Steps of the optimizer on one rank's shard: bytes of its state, kernels, Newton-Schulz products of Muon."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from llmsim.model.work import Gemm, MemoryBound, Step


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


_ITERATIONS = 5  # of Newton and Schulz, as Muon is used


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
