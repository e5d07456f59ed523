"""Which model a cluster is worth in a number of days: compute-optimal sizes, and over-trained ones.

FLOPs of the budget = days × GPUs × FLOP/s that a GPU sustains for the model (MFU); tokens = FLOPs / 6N. A model smaller
than the optimum sees more tokens than it would need for the least loss, which pays where it is used much.
"""

from dataclasses import dataclass

from llmsim.economics.chinchilla import FLOPS_PER_PARAMETER_AND_TOKEN, Law
from llmsim.errors import UserError

_DAY = 86400.0
MOST_DAYS = 36_500  # a century
OVERTRAINED = (1.0, 2.0, 4.0, 8.0)  # sizes below the optimum that are shown


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that takes the whole budget. excess_loss: nats above the least loss of the budget."""

    parameters: float
    tokens: float
    loss: float
    excess_loss: float

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.parameters


def budget_flops(days: float, gpus: int, flops_per_gpu: float) -> float:
    """Model FLOPs of a budget. flops_per_gpu: model FLOP/s that one GPU sustains."""
    if not 0 < days <= MOST_DAYS:  # false for NaN
        raise UserError(f"days: {days:g} is out of range; expected more than 0 and at most {MOST_DAYS:,}")
    return days * _DAY * gpus * flops_per_gpu


def choice(law: Law, flops: float, parameters: float) -> Choice:
    """What a model of this size becomes with `flops`."""
    tokens = flops / (FLOPS_PER_PARAMETER_AND_TOKEN * parameters)
    loss = law.loss(parameters, tokens)
    return Choice(parameters, tokens, loss, loss - law.loss(*law.optimum(flops)))


def choices(law: Law, flops: float) -> list[Choice]:
    """The compute-optimal model, then smaller, over-trained ones."""
    best, _ = law.optimum(flops)
    return [choice(law, flops, best / factor) for factor in OVERTRAINED]
