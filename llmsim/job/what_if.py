"""What to improve first: a job goes in, the days that each change would save come out, on the same failures."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmsim.catalogue.failures import job_constants
from llmsim.job.costs import Transfer
from llmsim.job.failures import UNPLANNED, Failures
from llmsim.job.interval import with_interval
from llmsim.job.monte_carlo import Runs, play_runs
from llmsim.job.paces import Paces
from llmsim.job.policy import Job
from llmsim.job.spread import Spread

_LEAST = 1e-4  # share of the days below which a change is none
_CAUSES = 3  # classes of parts that are tried, those that fail most


@dataclass(frozen=True, slots=True)
class Improvement:
    """A change, with the goodput it would give and the days it would save on average."""

    name: str
    goodput: float
    days_saved: float


def improvements(job: Job, runs: int, seed: int, best: int, transfer: Transfer, paces: Paces) -> list[Improvement]:
    """Those that help, the best first. best: the interval (iterations) that simulation found."""
    base, job = play_runs(job, runs, seed, paces)
    found = []
    for name, changed in _changes(job, best, transfer):
        after, _ = play_runs(changed, runs, seed, paces)
        saved = float((base.elapsed - after.elapsed).mean())
        if saved > _LEAST * float(base.elapsed.mean()):
            found.append(Improvement(name, _mean(after), saved / 86400.0))
    return sorted(found, key=lambda each: -each.days_saved)


def _mean(runs: Runs) -> float:
    return float(runs.goodput.mean())


def _changes(job: Job, best: int, transfer: Transfer) -> Iterator[tuple[str, Job]]:
    kind, recovery, nothing = job.checkpoint, job.recovery, Spread(0.0)
    if kind.every != best:
        yield "checkpoints at the best interval", with_interval(job, best)
    stall = transfer.offload + job_constants().save_plan
    aside = replace(kind, stall=stall, persist=transfer.write)
    if not kind.persist and stall < kind.stall and transfer.write < job.interval:
        yield "checkpoints written beside training (mode async)", replace(job, checkpoint=aside)
    yield "saves that take no time", replace(job, checkpoint=replace(kind, stall=0.0, slowed=1.0))
    yield (
        "no work lost (a free checkpoint after each iteration)",
        replace(job, checkpoint=replace(kind, stall=0.0, slowed=1.0, persist=0.0, peer=None, every=1)),
    )
    yield "failures noticed at once", replace(job, recovery=replace(recovery, detect=nothing, diagnose=0.0))
    yield "restarts that take no time", replace(job, recovery=replace(recovery, restart=nothing, warm_up=0.0))
    yield "loading that takes no time", replace(job, checkpoint=replace(kind, load=0.0, load_peer=0.0))
    yield (
        "spares that are always there at once",
        replace(job, spares=replace(job.spares, nodes=job.failures.nodes * 1000, swap=0.0)),
    )
    for cause, failures in _half_as_many(job.failures):
        yield f"half as many failures: {cause}", replace(job, failures=failures)


def _half_as_many(failures: Failures) -> Iterator[tuple[str, Failures]]:
    often = sorted((parts for parts in failures.parts if parts.cause in UNPLANNED), key=lambda parts: -parts.rate)
    for chosen in often[:_CAUSES]:
        rarer = tuple(replace(each, mtbf=2.0 * each.mtbf) if each is chosen else each for each in failures.parts)
        yield chosen.cause, replace(failures, parts=rarer)
