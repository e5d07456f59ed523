"""Goodput by the size of the cluster: a job goes in, one row for each number of GPUs comes out.

As many parts for each GPU, and as many bytes on as much storage, as the job itself has: weak scaling, in which an
iteration takes as long on any size. What grows with the cluster are failures, and the start of process groups.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmsim.catalogue.failures import job_constants
from llmsim.job.formulas import exact_goodput
from llmsim.job.interval import best_interval, with_interval
from llmsim.job.monte_carlo import play_runs
from llmsim.job.policy import Job

FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
_ONE = ("job", "planned")  # classes of which there is one, whatever the size
_RUNS, _FAILURES = 8, 300


def goodput_by_size(
    job: Job, gpus_per_node: int, factors: Sequence[float] = FACTORS, seed: int = 0
) -> list[dict[str, Any]]:
    """`gpus`, `goodput` at the best interval, `interval_s`, and `exact`: Daly's for exponential failures."""
    rows = []
    for factor in factors:
        gpus = round(job.gpus * factor / gpus_per_node) * gpus_per_node
        if gpus < gpus_per_node:
            continue
        scaled = _scaled(job, gpus)
        best = with_interval(scaled, best_interval(scaled, seed, runs=2).every)
        runs, _ = play_runs(best, _RUNS, seed, workers=1)
        restart = best.recovery.mean + best.checkpoint.load
        rows.append({
            "gpus": gpus,
            "goodput": runs.mean_goodput,
            "interval_s": best.interval,
            "exact": exact_goodput(best.interval, best.checkpoint.stall, restart, best.failures.mtbf),
        })  # fmt: skip
    return rows


def _scaled(job: Job, gpus: int) -> Job:
    """The job on so many GPUs, long enough to have failures. Failures of the whole job grow in number with the GPUs."""
    factor, known = gpus / job.gpus, job_constants()
    parts = tuple(
        replace(each, mtbf=each.mtbf / factor)
        if each.cause in _ONE
        else replace(each, count=round(each.count * factor) or 1)
        for each in job.failures.parts
    )
    failures = replace(
        job.failures, nodes=max(1, round(job.failures.nodes * factor)), parts=parts, fixed=(),
        gaps=tuple(gap / factor for gap in job.failures.gaps),
    )  # fmt: skip
    start = job.recovery.restart
    grown = max(0.0, start.median + known.restart(gpus) - known.restart(job.gpus))
    spares = replace(job.spares, nodes=max(job.spares.nodes and 1, round(job.spares.nodes * factor)))
    rate = failures.event_rate
    iterations = max(1, round(_FAILURES / rate / job.pace)) if rate else job.iterations
    return replace(
        job, gpus=gpus, iterations=iterations, failures=failures, elastic=None, spares=spares,
        recovery=replace(job.recovery, restart=replace(start, median=grown)),
    )  # fmt: skip
