"""What follows the backward passes: gradient reduction over data parallel ranks, the optimizer, parameter gathering."""

from collections.abc import Sequence
from dataclasses import dataclass

from llmsim.model.work import Communication, MemoryBound, Step

DTYPE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """Bytes a parameter moves in one optimizer step, beside its gradient and the copy that computes.

    `state`: fp32 values that are read and written; `kernels`: launches for all parameters when not fused into one.
    """

    state: int
    kernels: int


# Adam: master weight and two moments. Adafactor keeps row and column sums, Muon one momentum (its orthogonalisation is
# matrix arithmetic, listed apart). SGD with momentum: master weight and momentum.
OPTIMIZERS = {
    "adam": OptimizerState(3, 12),
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


def reduction_steps(shares: Shares, grad_bytes: int, sharded: bool) -> list[Step]:
    """Gradient reduction of one bucket: a reduce-scatter when the optimizer is sharded, else an all-reduce."""
    operation = "reduce_scatter" if sharded else "all_reduce"
    return [
        Step(
            f"gradient {operation.replace('_', '-')}",
            Communication(operation, group, size * grad_bytes),
            "dp",
            "backward",
        )
        for group, size in (("dp", shares.dense), ("edp", shares.expert))
        if size > 0
    ]


def gather_steps(shares: Shares, param_bytes: int) -> list[Step]:
    """All ranks get the parameters that the sharded optimizer has updated."""
    return [
        Step("parameter all-gather", Communication("all_gather", group, size * param_bytes), "dp", "update")
        for group, size in (("dp", shares.dense), ("edp", shares.expert))
        if size > 0
    ]


def optimizer_steps(
    parameters: float, optimizer: str, grad_bytes: int, param_bytes: int, fused: bool, tensors: int
) -> list[Step]:
    """Gradient norm, then the update of `parameters` elements held by this rank in `tensors` tensors."""
    kind = OPTIMIZERS[optimizer]
    norm = Step("gradient norm", MemoryBound(parameters * grad_bytes, 2), "compute", "update")
    traffic = parameters * (grad_bytes + 8 * kind.state + (param_bytes if param_bytes < 4 else 0))
    update = Step(optimizer, MemoryBound(traffic, 1 if fused else kind.kernels * tensors), "compute", "update")
    return [norm, update]


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
