"""From a scenario to the job that is played: its parts and how often they fail, what saves and restarts take.

Raises `ScenarioError` for a job that can never end: an interval that no stretch without failures is long enough for,
storage that is slower than the interval, spares that run out.
"""

from dataclasses import dataclass, replace
from math import ceil, inf, sqrt

from llmsim.catalogue.failures import fleet, job_constants
from llmsim.economics.reading import training_tokens
from llmsim.errors import ScenarioError
from llmsim.files import read_rows
from llmsim.job.costs import Transfer, transfers
from llmsim.job.endless import check_spares
from llmsim.job.failures import Failure, Failures, Offenders, Parts
from llmsim.job.paces import Paces
from llmsim.job.policy import HEALTHY, Checkpointing, Elastic, Job, Recovery, Soft, Spares, State
from llmsim.job.spread import Spread
from llmsim.scenario import Scenario
from llmsim.scenario.checks.job import DOWN
from llmsim.scenario.job_sections import Every, LogNormal

_UNSHAPED = ("planned", "slow_gpu", "flap")  # always exponential
_FAIR = 0.5  # what a copy in the background gets of a link that training uses as well


@dataclass(frozen=True)
class Prepared:
    """`job`: what is played; its interval is provisional where `chosen` is False. transfer: what was derived for it."""

    job: Job
    chosen: bool
    transfer: Transfer


def prepare(scenario: Scenario, paces: Paces) -> Prepared:
    """The job of a scenario. Simulates a healthy iteration, and those states that the job is sure to come to."""
    section, resolved = scenario.job, scenario.resolve()
    pace = paces.of(HEALTHY)
    iterations = _iterations(scenario)
    transfer = transfers(scenario, float(paces.metrics["parameters"]))
    recovery = _recovery(scenario, resolved.gpus)
    failures = _failures(scenario)
    checkpoint = _checkpoint(scenario, transfer, paces, pace, iterations)
    spares = Spares(
        nodes=section.spares.nodes,
        swap=section.spares.swap,
        repair=_spread(section.spares.repair),
        switch_repair=_spread(section.spares.switch_repair),
        behind_switch=min(resolved.nodes, resolved.topology.network.leaf_nodes),
    )
    elastic = None
    if section.elastic.enabled:
        rejoin = section.elastic.rejoin
        each = resolved.gpus // resolved.layout.dp / resolved.gpus_per_node
        back = recovery.restart.median + checkpoint.load if rejoin == "auto" else rejoin
        elastic = Elastic(resolved.layout.dp, each, section.elastic.fewest or 1, back)
    constants = job_constants()
    soft = Soft(
        slow_found=_spread(section.failures.slow_gpu.found, constants.slow_gpu_found),
        sdc_found=_spread(section.failures.sdc_found, constants.sdc_found),
        flap_time=_or(section.failures.flap.time, constants.flap_time),
    )
    job = Job(
        iterations, resolved.gpus, failures, checkpoint, recovery, spares, soft, elastic, section.variation,
        {HEALTHY: pace},
    )  # fmt: skip
    job = replace(job, paces={state: paces.of(state) for state in _states(job)})
    check_spares(job)
    return Prepared(job, section.checkpoint.interval != "auto", transfer)


def _or(value: float | str, auto: float) -> float:
    return auto if value == "auto" else float(value)


def _spread(value: LogNormal | str | None, auto: float = 0.0) -> Spread | None:
    if value is None:
        return None
    return Spread(auto) if value == "auto" else Spread(value.median, value.sigma)


def _iterations(scenario: Scenario) -> int:
    if scenario.job.iterations is not None:
        return scenario.job.iterations
    tokens = training_tokens(scenario)
    if not tokens:
        raise ScenarioError(
            "job.iterations: missing, and there are no training.tokens; expected either, such as job.iterations 100000"
        )
    return ceil(tokens / (scenario.training.global_batch * scenario.training.seq_len))


def _recovery(scenario: Scenario, gpus: int) -> Recovery:
    section, known = scenario.job.recovery, job_constants()
    return Recovery(
        detect=_spread(section.detect, known.detect),
        diagnose=_or(section.diagnose, known.diagnose),
        restart=_spread(section.restart, known.restart(gpus)),
        warm_up=section.warm_up,
    )


def _checkpoint(scenario: Scenario, costs: Transfer, paces: Paces, pace: float, iterations: int) -> Checkpointing:
    section = scenario.job.checkpoint
    aside = section.mode != "sync"
    stall = _or(section.stall, job_constants().save_plan + (costs.offload if aside else costs.write))
    shared = aside and section.network == "shared" and costs.nic_share > 0
    # Two flows on one link have half of it each.
    write = costs.write * max(1.0, costs.nic_share / _FAIR) if shared else costs.write
    peer = costs.peer / (_FAIR if shared else 1.0)
    used = _FAIR if section.mode == "memory" else min(costs.nic_share, _FAIR)
    interval = section.interval
    every = interval.iterations if isinstance(interval, Every) else None
    if every is None:
        every = iterations if interval == "auto" else max(1, round(interval / pace))
    return Checkpointing(
        every=every,
        stall=stall,
        persist=write if aside else 0.0,
        peer=peer if section.mode == "memory" else None,
        storage_every=section.storage_every,
        slowed=paces.beside_copies(used) if shared else 1.0,
        load=_or(scenario.job.recovery.load, costs.load),
        load_peer=_or(scenario.job.recovery.load, costs.load_peer),
        keep=section.keep,
        size=costs.size,
    )


def _failures(scenario: Scenario) -> Failures:
    section, resolved = scenario.job.failures, scenario.resolve()
    network, nodes, nics = resolved.topology.network, resolved.nodes, resolved.nodes * resolved.topology.node.nics
    leaves = ceil(nodes / network.leaf_nodes) * (network.rails if network.rail_optimised else 1)
    counts = {
        "gpu": resolved.gpus, "node": nodes, "nic": nics, "link": nics, "switch": leaves if nodes > 1 else 0,
        "software": nodes, "sdc": resolved.gpus, "planned": 1, "job": 1, "slow_gpu": resolved.gpus, "flap": nics,
    }  # fmt: skip
    mtbf = dict(fleet(section.preset).mtbf) if section.preset else {}
    for cause in ("gpu", "node", "nic", "link", "switch", "software", "sdc", "planned", "job"):
        if (own := getattr(section, f"{cause}_mtbf")) is not None:
            mtbf[cause] = own
    for cause in ("slow_gpu", "flap"):
        if (own := getattr(section, cause).mtbf) is not None:
            mtbf[cause] = own
    for cause in ("nic", "link", "switch", "flap"):
        if cause in mtbf and not counts[cause] and not (section.preset and nodes == 1):
            key = f"{cause}.mtbf" if cause == "flap" else f"{cause}_mtbf"
            raise ScenarioError(f"job.failures.{key}: this cluster has no such part; expected null")
    parts = tuple(
        Parts(cause, counts[cause], time, 1.0 if cause in _UNSHAPED else section.shape, section.burn_in)
        for cause, time in sorted(mtbf.items())
        if counts[cause]
    )
    repeat = section.repeat
    return Failures(
        nodes,
        parts,
        Offenders(repeat.share, repeat.factor, repeat.exclude_after) if repeat.share else None,
        _gaps(scenario),
        _fixed(scenario),
    )


def _gaps(scenario: Scenario) -> tuple[float, ...]:
    """Seconds. A path is of a CSV file with a column `hours`."""
    value = scenario.job.failures.gaps
    if not isinstance(value, str):
        return value or ()
    _, rows = read_rows(
        scenario.beside(value), ScenarioError, "a CSV file with a column `hours` of times between failures"
    )
    found = []
    for line, cells in rows:
        try:
            hours = float(cells["hours"])
        except (KeyError, ValueError):
            hours = 0.0
        if not 0.0 < hours < inf:
            raise ScenarioError(f"{value}:{line}: no time in its column `hours`; expected more than 0")
        found.append(hours * 3600.0)
    if not found:
        raise ScenarioError(f"{value}: no times between failures; expected a column `hours`")
    return tuple(found)


def _fixed(scenario: Scenario) -> tuple[Failure, ...]:
    """`faults` of kind gpu_down and node_down: at a moment of the job, until they are repaired."""
    found = []
    for fault in scenario.faults:
        if fault.kind in DOWN:
            place = fault.gpu if fault.kind == "gpu_down" else fault.node
            node = int(place.partition(".")[0].removeprefix("node"))
            repair = None if fault.until is None else fault.until - fault.start
            found.append(Failure(fault.start, "fault", node, (0.5, 0.5, 0.5, 0.5), repair))
    return tuple(sorted(found))


def _states(job: Job) -> list[State]:
    """Those that a run is likely to come to: simulated before many runs ask for them at once."""
    causes = {parts.cause for parts in job.failures.parts}
    lost = [0]
    if job.elastic:
        away = 0.0
        if job.spares.repair is not None:
            away = job.failures.node_rate * job.spares.repair.mean
        most = max(1.0, away + 3.0 * sqrt(away) - job.spares.nodes)
        first = max(1, job.elastic.missing(1))
        last = min(job.elastic.replicas - job.elastic.fewest, job.elastic.missing(ceil(most)), 8 * first)
        lost += range(first, last + 1, first)
    slow = [False, *([True] if "slow_gpu" in causes else [])]
    flaps = [False, *([True] if "flap" in causes else [])]
    return [State(n, s, f) for n in lost for s in slow for f in flaps if n == 0 or not (s or f)]
