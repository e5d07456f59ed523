"""Closed forms of checkpointed jobs: mean time between failures and costs go in, intervals and goodput come out.

tau: work between saves, delta: how long a save stops training, restart: from a failure until training goes on, mtbf:
mean time between failures of the whole job; all in seconds. Failures are exponential.
"""

from math import exp, expm1, inf, sqrt


def young_interval(delta: float, mtbf: float) -> float:
    """√(2·δ·M): J. W. Young, A first order approximation to the optimum checkpoint interval, CACM 1974."""
    return sqrt(2.0 * delta * mtbf) if mtbf < inf else inf


def daly_interval(delta: float, mtbf: float) -> float:
    """J. T. Daly, A higher order estimate of the optimum checkpoint interval, FGCS 2006, equation 37."""
    if mtbf == inf:
        return inf
    if delta >= 2.0 * mtbf:
        return mtbf
    part = delta / (2.0 * mtbf)
    return sqrt(2.0 * delta * mtbf) * (1.0 + sqrt(part) / 3.0 + part / 9.0) - delta


def exact_goodput(tau: float, delta: float, restart: float, mtbf: float) -> float:
    """τ / (M·e^{R/M}·(e^{(τ+δ)/M} − 1)): Daly 2006, with failures during saves and restarts too."""
    if mtbf == inf:
        return tau / (tau + delta)
    if (tau + delta) / mtbf > 700.0:
        return 0.0
    return tau / (mtbf * exp(restart / mtbf) * expm1((tau + delta) / mtbf))


def rsc_ettr(nodes: int, rate: float, start: float, interval: float, write: float) -> float:
    """Expected effective training time ratio of Kokolis et al., arXiv 2410.21680, to first order in failures.

    rate: failures of one node per second; start: seconds of a restart; write: seconds that a save stops training.
    """
    return (1.0 - nodes * rate * (start + interval / 2.0)) / (1.0 + write / interval)
