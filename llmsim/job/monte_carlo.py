"""Many runs of one job: a job and a seed go in, the outcome of each run comes out.

Run number n has the same failures whatever the job does about them, so that two jobs are compared run by run (common
random numbers). A run that comes to a state whose iteration time is not known is played again when it is.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.job.paces import Paces
from llmsim.job.player import Outcome, UnknownPace, play_job
from llmsim.job.policy import HEALTHY, Job, State
from llmsim.job.progress import CAUSES
from llmsim.studies.sweep.journal import Journal
from llmsim.studies.sweep.workers import default_workers, run_dask, run_local

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 25  # runs of one task
_SECONDS_A_FAILURE = 3e-5  # roughly, to decide whether other processes are worth their start
_WORTH = 2.0  # s of work

Task = tuple[int, int, int]  # seed, first run, number of runs


@dataclass(frozen=True)
class Runs:
    """Arrays over runs, float64[runs]; `failures`: by cause. Of each run elapsed = productive + sum of lost (s)."""

    elapsed: np.ndarray
    productive: np.ndarray
    lost: Mapping[str, np.ndarray]
    failures: Mapping[str, np.ndarray]
    saves: np.ndarray

    @property
    def goodput(self) -> np.ndarray:
        return self.productive / self.elapsed

    @cached_property
    def table(self) -> "pd.DataFrame":
        """One row a run: `run`, `elapsed_s`, `productive_s`, lost seconds and failures by cause, `saves`."""
        import pandas as pd

        return pd.DataFrame({
            "run": np.arange(len(self.elapsed)),
            "elapsed_s": self.elapsed,
            "productive_s": self.productive,
            **{f"lost_s.{name}": seconds for name, seconds in self.lost.items()},
            **{f"failures.{name}": count.astype(int) for name, count in self.failures.items()},
            "saves": self.saves.astype(int),
        })  # fmt: skip

    @property
    def mean_goodput(self) -> float:
        """Of the productive time of all runs over all their time."""
        return float(self.productive.sum() / self.elapsed.sum())


def play_runs(
    job: Job,
    runs: int,
    seed: int = 0,
    paces: Paces | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[float], None] | None = None,
    journal: Journal | None = None,
) -> tuple[Runs, Job]:
    """Play `runs` runs, and give back the job with the iteration times that they needed.

    workers: processes on this machine; None: all cores where it is worth it. scheduler: of a dask cluster instead.
    journal: keeps runs that are done on disk; those that it holds already are not played again.
    """
    todo: dict[str, Task] = {str(first): (seed, first, min(_CHUNK, runs - first)) for first in range(0, runs, _CHUNK)}
    total, found = len(todo), {}
    name = _name_of(job)
    if journal is not None:
        for key, task in list(todo.items()):
            if (mark := f"{name} {task}") in journal:
                found[int(key)] = [Outcome(**each) for each in journal.row(mark)["outcomes"]]
                del todo[key]
    work = runs * (10.0 + job.ideal * job.failures.event_rate) * _SECONDS_A_FAILURE
    processes = 1 if work < _WORTH else min(workers or default_workers(), total)
    while todo:
        results = (
            run_dask(play_chunk, job, todo.items(), scheduler)
            if scheduler
            else run_local(play_chunk, job, todo.items(), processes)
        )
        unknown: set[State] = set()
        for key, result in results:
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, State):
                unknown.add(result)
                continue
            found[int(key)] = result
            if journal is not None:
                rows = [asdict(outcome) for outcome in result]
                journal.add(f"{name} {todo[key]}", {"status": "ok", "outcomes": rows})
            if progress is not None:
                progress(len(found) / total)
        todo = {key: task for key, task in todo.items() if int(key) not in found}
        if todo:
            job = replace(job, paces={**job.paces, **{state: paces.of(state) for state in sorted(unknown)}})
    return _together([outcome for _, chunk in sorted(found.items()) for outcome in chunk]), job


def _name_of(job: Job) -> str:
    """A job by all that decides its runs, iteration times apart, which follow from it."""
    return hashlib.sha256(repr(replace(job, paces={HEALTHY: job.pace})).encode()).hexdigest()[:16]


def play_chunk(job: Job, task: Task) -> list[Outcome] | State | Exception:
    """Some runs, or the state whose iteration time they need; an error is handed back, to be raised by the driver."""
    seed, first, count = task
    try:
        return [play_job(job, seed, run) for run in range(first, first + count)]
    except UnknownPace as unknown:
        return unknown.state
    except Exception as error:
        return error


def _together(outcomes: list[Outcome]) -> Runs:
    def column(read: Callable[[Outcome], Any]) -> np.ndarray:
        return np.array([read(outcome) for outcome in outcomes], dtype=float)

    causes = sorted({cause for outcome in outcomes for cause in outcome.failures})
    return Runs(
        elapsed=column(lambda outcome: outcome.elapsed),
        productive=column(lambda outcome: outcome.productive),
        lost={name: column(lambda outcome, name=name: outcome.lost[name]) for name in CAUSES},
        failures={name: column(lambda outcome, name=name: outcome.failures.get(name, 0)) for name in causes},
        saves=column(lambda outcome: outcome.saves),
    )
