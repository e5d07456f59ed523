"""The whole job against closed forms and published jobs: rows of what is known and what is simulated come out.

What a row needs is in its `inputs`; rows whose sources print too little are listed as such, and nothing is tuned to
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, sqrt

from llmsim.catalogue.failures import fleet
from llmsim.job.failures import Failure, Failures, Parts
from llmsim.job.formulas import daly_interval, exact_goodput, rsc_ettr
from llmsim.job.interval import best_interval
from llmsim.job.monte_carlo import Runs, play_runs
from llmsim.job.policy import HEALTHY, Checkpointing, Elastic, Job, Recovery, Soft, Spares, State
from llmsim.job.spread import Spread

_DAY, _HOUR = 86400.0, 3600.0
_RUNS, _SEED = 200, 1


@dataclass(frozen=True, slots=True)
class Row:
    """published and simulated: as text where they are bounds. holds: None where there is too little to say."""

    name: str
    what: str
    inputs: str
    published: str
    simulated: str
    holds: bool | None


def simple_job(
    failures: Failures, interval: float, stall: float, restart: float, *, pace: float = 1.0, many: int = 200
) -> Job:
    """A job of `many` intervals with constant costs whose nodes never leave: what closed forms describe (s)."""
    every = max(1, round(interval / pace))
    return Job(
        iterations=every * many, gpus=8, failures=failures, checkpoint=Checkpointing(every, stall),
        recovery=Recovery(Spread(0.0), 0.0, Spread(restart)), spares=Spares(10**6, 0.0, Spread(0.0), Spread(0.0)),
        soft=Soft(Spread(0.0), Spread(0.0), 0.0), paces={HEALTHY: pace},
    )  # fmt: skip


def job_rows() -> list[Row]:
    """All rows, in the order of their numbers."""
    return [*_closed_forms(), *_replicas(), *_rsc(), *_llama(), _megascale(), *_unknown()]


def _played(job: Job, runs: int = _RUNS) -> Runs:
    return play_runs(job, runs, _SEED, workers=1)[0]


def _closed_forms() -> Iterator[Row]:
    """V1: Daly's exact mean, and his interval."""
    for mtbf, stall, restart in ((10000.0, 30.0, 600.0), (10000.0, 300.0, 600.0), (3600.0, 60.0, 300.0)):
        failures = Failures(1, (Parts("job", 1, mtbf),))
        interval = round(daly_interval(stall, mtbf))
        runs = _played(simple_job(failures, interval, stall, restart))
        exact = exact_goodput(interval, stall, restart, mtbf)
        ideal = float(runs.productive.mean())
        error = float(runs.elapsed.std(ddof=1)) / sqrt(_RUNS)
        inputs = f"M {mtbf:g} s, save {stall:g} s, restart {restart:g} s, interval {interval} s"
        yield Row(
            "V1",
            "goodput, Daly's exact mean",
            inputs,
            f"{exact:.4f}",
            f"{runs.mean_goodput:.4f}",
            abs(float(runs.elapsed.mean()) - ideal / exact) <= 3.0 * error,
        )
        best = best_interval(simple_job(failures, interval, stall, restart), _SEED).every
        yield Row(
            "V1",
            "best interval, Daly's",
            inputs.rpartition(",")[0],
            f"{daly_interval(stall, mtbf):.0f} s",
            f"{best} s",
            abs(best / daly_interval(stall, mtbf) - 1.0) <= 0.05,
        )


def _replicas() -> Iterator[Row]:
    """V2 and V3: arXiv 2602.00277, whose arithmetic is of one failure every 18 minutes, neither earlier nor later."""
    failures = Failures(12, gaps=(18 * 60.0,))
    sync = _played(simple_job(failures, 1.0, 0.0, 600.0, many=100_000), 1).mean_goodput
    yield Row(
        "V2",
        "FT-HSDP, synchronous",
        "98,000 GPUs, a failure every 18 min, 10 min stall",
        "0.44",
        f"{sync:.3f}",
        abs(sync - 0.44) <= 0.02,
    )
    job = simple_job(failures, 1.0, 0.0, 180.0, many=100_000)
    job = replace(
        job,
        elastic=Elastic(12, 1.0, 1, 0.0),
        spares=Spares(0, 0.0, Spread(600.0), Spread(600.0)),
        paces={HEALTHY: 1.0, State(1): 12 / 11},
        failures=_evenly(18 * 60.0, 400),
    )
    replicas = _played(job, 1).mean_goodput
    yield Row(
        "V3",
        "FT-HSDP, 12 replicas",
        "3 min stall, then 7 min at 11/12",
        "0.80",
        f"{replicas:.3f}",
        abs(replicas - 0.80) <= 0.02,
    )


def _evenly(gap: float, count: int) -> Failures:
    """A node of one replica after the other fails, every `gap` seconds."""
    middle = (0.5, 0.5, 0.5, 0.5)
    return Failures(12, fixed=tuple(Failure(gap * (n + 1), "fault", n % 12, middle) for n in range(count)))


def _rsc() -> Iterator[Row]:
    """V4 and V5: arXiv 2410.21680."""
    node = fleet("meta-rsc-1").mtbf["node"]
    for nodes, published in ((2048, 1.8), (16384, 0.23)):
        failures = Failures(nodes, (Parts("node", nodes, node),))
        times = [failure.time for _, failure in zip(range(20000), failures.drawn(_SEED, 0))]
        mean = times[-1] / len(times) / _HOUR
        yield Row(
            "V4",
            f"MTTF of {nodes * 8:,} GPUs",
            "6.50 failures in 1000 node-days",
            f"{published:g} h",
            f"{mean:.3g} h",
            abs(mean / published - 1.0) <= 0.03,
        )
    for nodes, interval, write, start in (
        (128, 1800.0, 5.0, 300.0),
        (256, 1200.0, 10.0, 300.0),
        (512, 600.0, 5.0, 120.0),
    ):
        failures = Failures(1, (Parts("job", 1, node / nodes),))
        job = simple_job(failures, interval, write, start, many=ceil(60 * _DAY / interval))
        found, formula = _played(job, 60).mean_goodput, rsc_ettr(nodes, 1.0 / node, start, interval, write)
        yield Row(
            "V5",
            "ETTR, the paper's formula",
            f"{nodes} nodes, interval {interval:g} s, save {write:g} s, start {start:g} s",
            f"{formula:.4f}",
            f"{found:.4f}",
            abs(found / formula - 1.0) <= 0.03,
        )


def _llama() -> Iterator[Row]:
    """V6: the count of failures, and which checkpoints and restarts keep the job above 90 %."""
    rates, counts = fleet("llama3-405b").mtbf, {"gpu": 16384, "nic": 16384, "link": 16384, "sdc": 16384, "planned": 1}
    parts = tuple(Parts(cause, counts.get(cause, 2048), mtbf) for cause, mtbf in sorted(rates.items()))
    failures = Failures(2048, parts)
    found = {"unexpected": [], "planned": []}
    for run in range(100):
        seen = {"unexpected": 0, "planned": 0}
        for failure in failures.drawn(_SEED, run):
            if failure.time > 54 * _DAY:
                break
            seen["planned" if failure.cause == "planned" else "unexpected"] += 1
        for kind, values in found.items():
            values.append(seen[kind])
    for kind, published in (("unexpected", 419), ("planned", 47)):
        mean = sum(found[kind]) / 100
        yield Row(
            "V6",
            f"Llama 3: {kind} interruptions",
            "16,384 GPUs, 54 days, rates by cause",
            f"{published}",
            f"{mean:.1f}",
            abs(mean - published) <= 1.96 * sqrt(published),
        )
    hard = Failures(2048, tuple(each for each in parts if each.cause not in ("planned", "sdc")))
    for stall, restart, above in ((5.0, 300.0, True), (10.0, 300.0, True), (60.0, 300.0, False)):
        interval = daly_interval(stall, hard.mtbf)
        job = simple_job(hard, interval, stall, restart, many=ceil(50 * _DAY / interval))
        goodput = _played(job, 20).mean_goodput
        yield Row(
            "V6",
            "Llama 3: effective training time",
            f"save {stall:g} s, restart {restart:g} s, Daly's interval",
            "> 0.90" if above else "> 0.90, not with this",
            f"{goodput:.3f}",
            (goodput > 0.90) == above,
        )


def _megascale() -> Row:
    """V11: arXiv 2402.15627, more than 100 recoveries of less than 10 + 15 minutes in several weeks."""
    mtbf = 28 * _DAY / 100
    job = simple_job(Failures(1, (Parts("job", 1, mtbf),)), 600.0, 2.0, 1500.0, many=ceil(28 * _DAY / 600.0))
    goodput = _played(job, 60).mean_goodput
    return Row(
        "V11",
        "MegaScale: effective training time",
        "100 recoveries of 25 min in 4 weeks",
        "> 0.90",
        f"{goodput:.3f}",
        goodput > 0.90,
    )


def _unknown() -> Iterator[Row]:
    for name, what, missing in (
        ("V7", "BLOOM-176B", "goodput is not printed, and hangs of 35 h are not failures of a part"),
        ("V8", "OPT-175B", "divergences of the loss that were rolled back are not told apart from failures"),
        ("V9", "DLRover, GLM-65B", "number of GPUs and interval are not given"),
        ("V10", "Ant, 1000 GPUs", "times of manual restarts are not given"),
        ("V12", "ByteRobust, 9,600 GPUs", "failures of that job are not given"),
        ("V13", "Alibaba C4", "the split of downtime was not read in the paper itself"),
        ("V14", "Gemini", "no inputs are given"),
    ):
        yield Row(name, what, missing, "–", "–", None)
