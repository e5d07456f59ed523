"""A time that is always the same, or log-normal: what a scenario says goes in, seconds for a random number come out."""

from dataclasses import dataclass
from math import exp, sqrt
from statistics import NormalDist

_NORMAL = NormalDist()
_LEAST = 1e-12  # random numbers are kept this far from 0 and 1, whose quantiles are infinite


@dataclass(frozen=True, slots=True)
class Spread:
    """`median` (s) and the standard deviation `sigma` of its logarithm; 0: always the median.

    Recoveries are heavy-tailed: OLMo Hybrid's took 3.7 minutes in the median and 38.9 in the mean.
    """

    median: float
    sigma: float = 0.0

    def at(self, share: float) -> float:
        """Seconds that the share `share` (0..1) of all cases stays below."""
        if not self.sigma:
            return self.median
        return self.median * exp(self.sigma * _NORMAL.inv_cdf(min(max(share, _LEAST), 1.0 - _LEAST)))

    @property
    def mean(self) -> float:
        return self.median * exp(self.sigma**2 / 2)


def slowest(parts: int, share: float) -> float:
    """How many standard deviations the slowest of `parts` normal ones lies above the mean; `share`: 0..1, at random.

    The largest of n has the distribution function F^n, so it is the quantile share^(1/n) of one.
    """
    return _NORMAL.inv_cdf(min(max(share, _LEAST) ** (1.0 / parts), 1.0 - _LEAST / sqrt(parts)))
