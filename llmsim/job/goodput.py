"""`goodput`: plays the whole job of a scenario many times, and says how long it takes, what is lost and what to change.

Three words that sources use for different things are kept apart here. Goodput: time spent on iterations that last, at
the pace of a healthy cluster, over elapsed time. Effective training time: the same with the time that a slower cluster
took for them (MegaScale's and Llama 3's). ETTR: the same again over the time from submission, the first start included
(Kokolis et al. 2024). None of them contains MFU, which `mfu` gives over wall time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from llmsim.economics.bill import bill, rates_of
from llmsim.errors import UserError
from llmsim.files import TABLES, check_output, write_table
from llmsim.job.endless import check_interval
from llmsim.job.formulas import daly_interval, young_interval
from llmsim.job.from_scenario import Prepared, prepare
from llmsim.job.interval import Curve, best_interval, with_interval
from llmsim.job.monte_carlo import Runs, play_runs
from llmsim.job.paces import Paces
from llmsim.job.player import Outcome, play_job
from llmsim.job.policy import HEALTHY, Job
from llmsim.job.what_if import Improvement, improvements
from llmsim.scenario import Scenario
from llmsim.studies.sweep.journal import Journal
from llmsim.studies.sweep.sweep import journal_path

RUNS = 200
_DAY = 86400.0
_QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
_WHAT_IF_RUNS = 40


@dataclass(frozen=True)
class Goodput:
    """The answer. `metrics` is plain data, as `llmsim goodput --json` prints it."""

    scenario: Scenario
    job: Job
    runs: Runs = field(repr=False)
    curve: Curve = field(repr=False)
    improvements: list[Improvement] = field(repr=False)
    metrics: dict[str, Any] = field(repr=False)
    seed: int = 0

    @cached_property
    def example(self) -> Outcome:
        """One run with its history: the one whose length is nearest to the median."""
        nearest = int(np.argmin(np.abs(self.runs.elapsed - np.median(self.runs.elapsed))))
        return play_job(self.job, self.seed, nearest, history=True)


def goodput(
    scenario: Scenario | Mapping[str, Any],
    runs: int = RUNS,
    seed: int = 0,
    workers: int | None = None,
    scheduler: str | None = None,
    what_if: bool = True,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Goodput:
    """Play the job of a scenario `runs` times. Equal seeds give equal runs, and the same failures under any policy.

    workers: processes on this machine. scheduler: `tcp://host:port` of a dask cluster instead. what_if: whether to find
    the best interval where the scenario gives one, and what to improve first. out: Parquet or CSV with a row for each
    run; beside it `OUT.journal` keeps those that are done, with which `resume` goes on. progress: called with the share
    done.
    Raises `ScenarioError` for a job that can never end, and the `UserError` of a scenario that is not valid.
    """
    if not isinstance(scenario, Scenario):
        scenario = Scenario(**scenario)
    if runs < 1 or seed < 0:
        raise UserError(f"{'runs' if runs < 1 else 'seed'}: {runs if runs < 1 else seed} is too small")
    paces = Paces(scenario)
    prepared = prepare(scenario, paces)
    job, curve = prepared.job, Curve((), (), prepared.job.checkpoint.every)
    if prepared.chosen:
        check_interval(job)
    if what_if or not prepared.chosen:
        curve = best_interval(job, seed, paces)
    if not prepared.chosen:
        job = with_interval(job, curve.every)
        check_interval(job)
    done, job = _played(job, runs, seed, paces, workers, scheduler, progress, out, resume)
    found: list[Improvement] = []
    if what_if and job.failures.mtbf < float("inf"):
        found = improvements(job, min(runs, _WHAT_IF_RUNS), seed, curve.every, prepared.transfer, paces)
    metrics = _metrics(scenario, replace(prepared, job=job), done, paces, curve)
    metrics["what_if"] = [{"change": e.name, "goodput": e.goodput, "days_saved": e.days_saved} for e in found]
    return Goodput(scenario, job, done, curve, found, metrics, seed)


def _played(
    job: Job,
    runs: int,
    seed: int,
    paces: Paces,
    workers: int | None,
    scheduler: str | None,
    progress: Callable[[float], None] | None,
    out: str | Path | None,
    resume: bool,
) -> tuple[Runs, Job]:
    """The runs; with `out` each is on disk as soon as it is done."""
    if out is None:
        if resume:
            raise UserError("resume needs the file of the runs that were interrupted (out)")
        return play_runs(job, runs, seed, paces, workers, scheduler, progress)
    check_output(str(out), TABLES)
    with Journal(journal_path(out), resume) as journal:
        done, job = play_runs(job, runs, seed, paces, workers, scheduler, progress, journal)
        write_table(done.table, out)
        journal.finish()
    return done, job


def _metrics(scenario: Scenario, prepared: Prepared, runs: Runs, paces: Paces, curve: Curve) -> dict[str, Any]:
    job, healthy = prepared.job, paces.metrics
    elapsed, productive = float(runs.elapsed.mean()), float(runs.productive.mean())
    lost = {name: float(seconds.mean()) for name, seconds in runs.lost.items()}
    running = runs.productive + runs.lost["degraded"]
    first = job.recovery.restart.mean
    mean = float(runs.goodput.mean())
    causes = {name: float(count.mean()) for name, count in runs.failures.items()}
    mtbf, stall = job.failures.mtbf, job.checkpoint.stall
    return {
        "name": scenario.name,
        "gpus": job.gpus,
        "spare_gpus": job.spares.nodes * scenario.resolve().gpus_per_node,
        "iterations": job.iterations,
        "iteration_time_s": job.paces[HEALTHY],
        "goodput": mean,
        "goodput_quantiles": _quantiles(runs.goodput),
        "effective_training_time": float((running / runs.elapsed).mean()),
        "ettr": float((running / (runs.elapsed + first)).mean()),
        "mfu": healthy["mfu"] * mean,
        "days": _quantiles(runs.elapsed / _DAY),
        "ideal_days": job.ideal / _DAY,
        "elapsed_s": elapsed,
        "productive_s": productive,
        "lost_s": lost,
        "failures": {"mean": sum(causes.values()), "by_cause": causes},
        "mtbf_s": mtbf if np.isfinite(mtbf) else None,
        "interval_s": job.interval,
        "best_interval_s": curve.every * job.pace,
        "young_interval_s": _finite(young_interval(stall, mtbf)),
        "daly_interval_s": _finite(daly_interval(stall, mtbf)),
        "intervals": [
            {"interval_s": interval, "goodput": value} for interval, value in zip(curve.intervals, curve.goodputs)
        ],
        "checkpoint": {
            "mode": scenario.job.checkpoint.mode,
            "every_iterations": min(job.checkpoint.every, job.iterations),
            "bytes": job.checkpoint.size,
            "stall_s": stall,
            "persist_s": job.checkpoint.persist,
            "load_s": job.checkpoint.load if job.checkpoint.peer is None else job.checkpoint.load_peer,
            "saves": float(runs.saves.mean()),
        },
        "bytes_written": float(runs.saves.mean()) * job.checkpoint.size,
        "recovery": {
            "detect_s": job.recovery.detect.mean + job.recovery.diagnose,
            "restart_s": job.recovery.restart.mean + job.recovery.warm_up,
        },
        **_bill(scenario, job, elapsed, (productive + lost["recomputed"]) / elapsed, healthy),
        "runs": len(runs.elapsed),
    }


def _bill(scenario: Scenario, job: Job, seconds: float, running: float, healthy: Mapping[str, Any]) -> dict[str, Any]:
    """Money and energy of all GPUs, spares included. running: share of the time in which iterations are made."""
    resolved, parts = scenario.resolve(), healthy["time_breakdown"]
    busy = (parts["compute"] + parts["optimizer"]) / sum(parts.values())
    gpus = resolved.gpus + job.spares.nodes * resolved.gpus_per_node
    made = bill(seconds, gpus, resolved.topology.gpu, busy * running, rates_of(scenario), resolved.topology)
    return made.as_metrics()


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {name: float(np.quantile(values, share)) for name, share in _QUANTILES.items()}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
