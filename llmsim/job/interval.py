"""The best interval between checkpoints by simulation: a job goes in, iterations between two saves come out.

Goodput is flat around its best, so that the best of a few simulated intervals is mostly chance. All of them together
say more: the time that a second of progress takes is, for any failures, a constant, a share for saving that falls with
the interval, and one for redone work that grows with it: a + b/τ + c·τ + d·τ² is fitted to runs that share failures.
"""

from dataclasses import dataclass, replace
from math import ceil, isfinite, sqrt

import numpy as np

from llmsim.job.endless import reachable
from llmsim.job.formulas import daly_interval
from llmsim.job.monte_carlo import play_runs
from llmsim.job.paces import Paces
from llmsim.job.policy import Job

_POINTS, _WIDEST = 11, 3.5  # intervals tried, from so many times shorter than Daly's to as many times longer
_RUNS, _FAILURES = 8, 1000  # of each interval, and how many failures a run should have


@dataclass(frozen=True, slots=True)
class Curve:
    """Simulated goodput by interval (s), and the interval at which the curve through them is highest, in iterations."""

    intervals: tuple[float, ...]
    goodputs: tuple[float, ...]
    every: int


def with_interval(job: Job, every: int) -> Job:
    return replace(job, checkpoint=replace(job.checkpoint, every=max(1, min(every, job.iterations))))


def best_interval(job: Job, seed: int = 0, paces: Paces | None = None, runs: int = _RUNS) -> Curve:
    """The best interval of the job, and the goodput of those that were tried. Without failures: none but the last save.

    What is played has some thousand failures, however many the job has: few would say nothing.
    """
    mtbf, pace, kind = job.failures.mtbf, job.pace, job.checkpoint
    if not isfinite(mtbf):
        return Curve((), (), job.iterations)
    shortest = _shortest(job)
    if kind.stall == 0.0 and kind.slowed == 1.0:
        return Curve((), (), min(shortest, job.iterations))  # saving is free
    centre = max(daly_interval(max(kind.stall, 1e-3 * pace), mtbf), pace)
    tried = sorted({
        max(shortest, round(centre * _WIDEST ** (2.0 * k / (_POINTS - 1) - 1.0) / pace)) for k in range(_POINTS)
    })  # fmt: skip
    tried = [n for n in tried if reachable(with_interval(job, n))] or [shortest]
    if not reachable(with_interval(job, tried[0])):
        return Curve((), (), min(tried[0], job.iterations))  # for others to say that it never ends
    # Nodes that leave for good would be gone before the end of a longer job, and young parts would be old.
    own = job.spares.repair is None or any(parts.shape != 1.0 for parts in job.failures.parts)
    long = job if own else replace(job, iterations=max(tried[-1], ceil(_FAILURES / job.failures.event_rate / pace)))
    points = [n for n in tried if n <= long.iterations] or [long.iterations]
    costs = []
    for every in points:
        played, long = play_runs(with_interval(long, every), runs, seed, paces, workers=1)
        costs.append(1.0 / played.mean_goodput)
    intervals = np.array(points) * pace
    every = _lowest(intervals, np.array(costs), points, pace)
    return Curve(tuple(intervals.tolist()), tuple(1.0 / cost for cost in costs), min(every, job.iterations))


def _shortest(job: Job) -> int:
    """Iterations that a copy of the last checkpoint needs to end before the next."""
    kind = job.checkpoint
    if kind.peer is not None:
        needed = max(kind.peer, kind.persist / kind.storage_every) - kind.stall
    else:
        needed = kind.persist - kind.stall
    return max(1, ceil(max(needed, kind.stall) / job.pace))


def _lowest(intervals: np.ndarray, costs: np.ndarray, points: list[int], pace: float) -> int:
    """Iterations at which the fitted curve is lowest, among those between the first and the last point."""
    if len(points) < 5:
        return points[int(np.argmin(costs))]
    scale = sqrt(intervals[0] * intervals[-1])
    x = intervals / scale
    terms = np.stack([np.ones_like(x), 1.0 / x, x, x * x], axis=1)
    fitted = np.linalg.lstsq(terms / costs[:, None], np.ones_like(x), rcond=None)[0]
    many = np.unique(np.round(np.geomspace(points[0], points[-1], 400)).astype(int))
    at = many * pace / scale
    curve = np.stack([np.ones_like(at), 1.0 / at, at, at * at], axis=1) @ fitted
    return int(many[int(np.argmin(curve))])
