"""Jobs that never end: a job goes in, and a `ScenarioError` comes out where it cannot get to its end."""

from math import isfinite, sqrt

from llmsim.errors import ScenarioError
from llmsim.job.formulas import exact_goodput
from llmsim.job.policy import Job

_SOME = 3.0  # events that a job can do without only by luck
_LEAST_GOODPUT = 0.01  # below, a job of a month takes years


def check_spares(job: Job) -> None:
    """Nodes that leave for good, against those that stand by."""
    if job.spares.repair is not None or job.elastic:
        return
    lost = job.failures.node_rate * job.ideal
    if lost - 3.0 * sqrt(lost) > job.spares.nodes:
        raise ScenarioError(
            f"job.spares.nodes: {job.spares.nodes} with repair never: some {lost:,.0f} nodes fail for good in the "
            f"{job.ideal / 86400:,.3g} days of the job, which so never ends; expected that many spares, or a "
            "job.spares.repair such as 24 h"
        )


def check_interval(job: Job) -> None:
    """Whether the job gets from one checkpoint to the next, and a copy to storage from one to the next."""
    kind, tau, mtbf = job.checkpoint, job.interval, job.failures.mtbf
    restart = job.recovery.mean + kind.load
    if kind.copying > tau + kind.stall and kind.every < job.iterations:
        raise ScenarioError(
            f"job.checkpoint.interval: {tau:.4g} s is shorter than the {kind.copying:.4g} s that a checkpoint of "
            f"{kind.size / 1e9:,.4g} GB takes to be written; expected at least {kind.copying:.4g} s, or a faster "
            "job.checkpoint.bandwidth"
        )
    if kind.peer is not None and kind.persist > kind.storage_every * (tau + kind.stall) and kind.every < job.iterations:
        raise ScenarioError(
            f"job.checkpoint.storage_every: {kind.storage_every} intervals of {tau:.4g} s are shorter than the "
            f"{kind.persist:.4g} s that a checkpoint takes to storage; expected more, or a longer interval"
        )
    if kind.stall > tau and kind.every < job.iterations:
        raise ScenarioError(
            f"job.checkpoint.interval: {tau:.4g} s is shorter than the {kind.stall:.4g} s that a save stops training; "
            f"expected more than {kind.stall:.4g} s, a faster job.checkpoint.bandwidth, or mode async"
        )
    _check_kept(job)
    if not reachable(job):
        raise ScenarioError(
            f"job.checkpoint.interval: {tau:.4g} s of work, a save of {kind.stall:.3g} s and a restart of "
            f"{restart:.4g} s, where the job fails every {mtbf:.4g} s: it never gets to its next checkpoint; "
            "expected a shorter interval, or fewer failures"
        )


def _check_kept(job: Job) -> None:
    """Whether what is kept reaches back far enough for what is found late, or lost in several places at once."""
    kind, cycle = job.checkpoint, job.interval + job.checkpoint.stall
    rates = {parts.cause: parts.rate for parts in job.failures.parts}
    found, corrupt = job.soft.sdc_found.mean, rates.get("sdc", 0.0)
    if kind.keep is not None and kind.keep * cycle < found and corrupt * job.ideal > _SOME:
        raise ScenarioError(
            f"job.checkpoint.keep: {kind.keep} checkpoints reach back {kind.keep * cycle:.4g} s, and corruption is "
            f"found after {found:.4g} s: the job begins anew each time, and never ends; expected more than "
            f"{found / cycle:,.0f}, or a shorter job.failures.sdc_found"
        )
    if kind.peer is not None and job.spares.behind_switch > 1 and rates.get("switch"):
        stretch = kind.storage_every * cycle
        if exact_goodput(stretch, 0.0, job.recovery.mean + kind.load, 1.0 / rates["switch"]) < _LEAST_GOODPUT:
            raise ScenarioError(
                f"job.checkpoint.storage_every: {kind.storage_every} intervals take {stretch:.4g} s, and a switch "
                f"takes what is in memory every {1.0 / rates['switch']:.4g} s: the job never ends; expected fewer"
            )


def reachable(job: Job) -> bool:
    """Whether stretches without failures are ever long enough for a restart and the work between two checkpoints."""
    kind, failures = job.checkpoint, job.failures
    stretch, restart = job.interval + kind.stall + kind.copying, job.recovery.mean + kind.load
    if failures.gaps:
        return max(failures.gaps) > stretch + restart
    if not isfinite(failures.mtbf) or any(parts.shape < 1.0 for parts in failures.parts):
        return True  # the longest gaps are far longer than the mean
    return exact_goodput(stretch, 0.0, restart, failures.mtbf) > _LEAST_GOODPUT
