"""Fit the few kernel constants of a GPU to measured kernel times, and say how well the times determine them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from llmsim.catalogue.kernel_constants import KernelConstants, kernel_constants
from llmsim.cost.kernels import scaled
from llmsim.evidence.measured.kernels import MeasuredKernel

# What a table of matrix products can determine; attention and memory-bound kernels keep the catalogue's.
PARAMETERS = ("issue", "power", "launch", "hbm")


@dataclass(frozen=True, slots=True)
class Fitted:
    """A constant as a multiple of the catalogue's; `spread` is the relative change that costs 10 % of the fit."""

    name: str
    factor: float
    spread: float


def fit_kernels(
    rows: Sequence[MeasuredKernel],
    architecture: str,
    parameters: Sequence[str] = PARAMETERS,
    precision: str | None = None,
    sweeps: int = 3,
) -> tuple[KernelConstants, list[Fitted]]:
    """Constants that minimise the mean |log(model/measured)|, capped at 40 % against outliers.

    A coordinate search in log space: few parameters, each monotone in time, so nothing finer is needed.
    """
    base = kernel_constants(architecture)

    def loss(factors: dict[str, float]) -> float:
        constants = scaled(base, factors, precision)
        return sum(min(0.4, abs(log(row.predicted(constants) / row.seconds))) for row in rows) / len(rows)

    factors = dict.fromkeys(parameters, 1.0)
    best = loss(factors)
    step = 0.16
    for _ in range(sweeps):
        for name in parameters:
            for move in (step, -step, step / 2, -step / 2):
                trial = factors | {name: factors[name] * exp(move)}
                value = loss(trial)
                if value < best:
                    factors, best = trial, value
        step /= 2
    fitted = [Fitted(name, factors[name], _spread(loss, factors, name, 1.1 * best)) for name in parameters]
    return scaled(base, factors, precision), fitted


def _spread(loss, factors: dict[str, float], name: str, limit: float) -> float:
    """The smallest tried relative change of one factor, up or down, that lifts the loss over `limit`."""
    for change in (0.02, 0.05, 0.1, 0.2, 0.4):
        if all(loss(factors | {name: factors[name] * exp(sign * change)}) > limit for sign in (1.0, -1.0)):
            return change
    return 1.0
