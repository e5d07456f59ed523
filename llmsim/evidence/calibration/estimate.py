"""Factors on constants from measured times: regularised least squares of log times, robust against outliers.

Residuals are log(measured / predicted). A factor's prior is 1 within a factor of 1.35; what the measurements leave of
that uncertainty is how well they determine it. Constants that only ever act together stay undetermined, each by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_PRIOR = 0.3  # standard deviation of the logarithm of a factor before any measurement
_NOISE = 0.01  # least relative noise of a measured time
_FIRST_NOISE = 0.02  # before any fit
_UNKNOWN_NOISE = 0.1  # where no measurement is to spare: a kernel's usual error under the catalogue (docs/accuracy.md)
_TUNING = 1.345  # Huber's: residuals beyond this many deviations count linearly
_STEP = 0.03  # of the logarithm, for slopes

Predict = Callable[[Mapping[str, float]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A factor, and the standard deviation of its logarithm given the measurements."""

    name: str
    factor: float
    deviation: float

    @property
    def verdict(self) -> str:
        """In words: how well the measurements determine it."""
        if self.deviation <= 0.05:
            return "well determined"
        return "roughly determined" if self.deviation <= 0.15 else "not determined"


def estimate(
    predict: Predict,
    measured: Sequence[float],
    names: Sequence[str],
    rounds: int = 8,
    trust: Sequence[float] | None = None,
) -> tuple[list[Estimate], np.ndarray, np.ndarray]:
    """(estimates, errors before, errors after): errors are predicted over measured, minus one.

    predict: seconds of every measurement under the given factors. names: the factors, 1 being the catalogue.
    trust: how much each measurement counts (None: alike); what it adds up to does not matter.
    """
    target = np.log(np.asarray(measured, dtype=float))
    share = np.ones(len(target)) if trust is None else np.asarray(trust, dtype=float) / np.mean(trust)

    def predicted(x: np.ndarray) -> np.ndarray:
        return np.log(np.asarray(predict(dict(zip(names, np.exp(x).tolist()))), dtype=float))

    x = np.zeros(len(names))
    now = predicted(x)
    before = np.exp(now - target) - 1.0
    information, noise = np.eye(len(names)) / _PRIOR**2, _FIRST_NOISE
    for _ in range(rounds):
        residual = target - now
        slopes = np.column_stack([(predicted(x + _STEP * unit) - now) / _STEP for unit in np.eye(len(names))])
        weights = share * np.minimum(1.0, _TUNING * noise / np.maximum(np.abs(residual), 1e-12)) / noise**2
        information = slopes.T @ (weights[:, None] * slopes) + np.eye(len(names)) / _PRIOR**2
        move = np.linalg.solve(information, slopes.T @ (weights * residual) - x / _PRIOR**2)
        damping = min(1.0, 0.4 / max(np.abs(move).max(), 1e-12))  # far from linear beyond that
        move *= damping
        x, now = x + move, predicted(x + move)
        if damping == 1.0:  # what a fit leaves tells the noise; 1.4826 makes a median a standard deviation
            noise = max(_NOISE, 1.4826 * float(np.median(np.abs(target - now))))
        if np.abs(move).max() < 1e-3:
            break
    deviation = _deviation(information, noise, len(target))
    estimates = [Estimate(n, float(f), float(d)) for n, f, d in zip(names, np.exp(x), deviation)]
    return estimates, before, np.exp(now - target) - 1.0


def _deviation(information: np.ndarray, noise: float, count: int) -> np.ndarray:
    """Standard deviations of the factors, given the information of `count` measurements of this noise.

    A fit meets as many measurements as it has factors to turn, whatever their noise is: only the others tell it.
    """
    prior = np.eye(len(information)) / _PRIOR**2
    turned = len(information) - float(np.trace(np.linalg.inv(information) @ prior))
    spare = count - turned
    known = noise * (count / spare) ** 0.5 if spare >= 0.5 else _UNKNOWN_NOISE
    return np.sqrt(np.diag(np.linalg.inv((information - prior) * (noise / known) ** 2 + prior)))
