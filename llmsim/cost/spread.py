"""How much slower than a typical GPU the slowest of a job is.

Sustained clocks under a power limit differ between GPUs of one kind (Sinha et al., SC 2022, "Not All GPUs Are Created
Equal"). Kernel benchmarks show one GPU; a training step waits at every collective for the slowest of all.
"""

from functools import cache
from statistics import NormalDist

from llmsim.catalogue.kernel_constants import speed_spread


def slowest_share(gpus: int) -> float:
    """Expected speed of the slowest of `gpus` over the mean, for normally distributed speeds.

    The expected extreme of n normal values lies near the quantile (n - 0.375)/(n + 0.25) (Blom 1958).
    """
    return 1.0 - speed_spread() * _expected_extreme(gpus)


@cache
def _expected_extreme(count: int) -> float:
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0
