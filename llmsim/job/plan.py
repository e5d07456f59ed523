"""`plan`: how many GPUs it takes to train a model on so many tokens in so many days, or within a budget.

For each number of nodes the best layout is searched, and the whole job played with its failures. The inverse stands
beside it: how many tokens each cluster gets through in those days.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor
from typing import Any

from llmsim.cluster.reading.load import load_topology
from llmsim.economics.reading import training_tokens
from llmsim.errors import UserError
from llmsim.job.goodput import goodput
from llmsim.scenario import Scenario
from llmsim.studies.search import search
from llmsim.studies.search.settings import settings_of
from llmsim.studies.sweep.outcome import run_point

RUNS = 40
_AROUND = (0.25, 0.5, 1, 2, 4)  # of the scenario's own nodes, where none are given
_AXES = ("tp", "pp", "vpp", "cp", "ep", "dp", "micro_batches")


@dataclass(frozen=True)
class Planned:
    """rows: one for each cluster, in the order asked for. fewest_gpus: of those that are in time and within the budget.

    A row has `topology`, `nodes`, `gpus`, `fits` and `reason`; where it fits also `layout`, `set` (what makes the
    scenario this row), `iteration_time_s`, `days` (median), `days_p90`, `goodput`, `cost_usd`, `energy_kwh`, `meets`,
    and with a number of days `tokens_in_time`.
    """

    name: str
    tokens: float
    days: float | None
    budget: float | None
    rows: list[dict[str, Any]] = field(repr=False)

    @property
    def fewest_gpus(self) -> int | None:
        return min((row["gpus"] for row in self.rows if row.get("meets")), default=None)

    def record(self) -> dict[str, Any]:
        """Plain data, as `llmsim plan --json` prints."""
        return {
            "name": self.name, "tokens": self.tokens, "days": self.days, "budget_usd": self.budget, "rows": self.rows,
            "fewest_gpus": self.fewest_gpus,
        }  # fmt: skip


def plan(
    scenario: Scenario | Mapping[str, Any],
    tokens: float | None = None,
    days: float | None = None,
    nodes: Sequence[int] | None = None,
    budget: float | None = None,
    topologies: Sequence[str] | None = None,
    space: Mapping[str, Any] | None = None,
    layout: str = "search",
    runs: int = RUNS,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Planned:
    """The clusters of `nodes` (and `topologies`) that could train on `tokens`, each with its best layout and failures.

    tokens: None: those of the scenario. days, budget (dollars): what `meets` and `fewest_gpus` ask for. space: of the
    search, as `llmsim.search` takes it. layout: `search`, or `scenario` for the scenario's own with the data-parallel
    ranks that fit. Raises `UserError` where numbers make no sense.
    """
    if not isinstance(scenario, Scenario):
        scenario = Scenario(**scenario)
    tokens = training_tokens(scenario) if tokens is None else tokens
    _check(tokens, days, budget, nodes, layout)
    own = scenario.cluster.nodes
    counts = sorted(set(nodes or (max(1, round(own * share)) for share in _AROUND)))
    clusters = [(name, count) for name in topologies or [scenario.cluster.topology] for count in counts]
    rows = []
    for done, (topology, count) in enumerate(clusters, 1):
        try:
            values = _sized(scenario, topology, count, tokens)
            rows.append(_row(scenario, values, days, budget, space, layout, runs, seed, workers))
        except UserError as error:
            rows.append({"fits": False, "reason": "; ".join(str(error).splitlines()), "meets": False})
        per_node = scenario.cluster.gpus_per_node or _gpus_of(topology, scenario)
        rows[-1] = {"topology": topology, "nodes": count, "gpus": count * per_node} | rows[-1]
        if progress is not None:
            progress(done / len(clusters))
    return Planned(scenario.name, tokens, days, budget, rows)


def _check(
    tokens: float | None, days: float | None, budget: float | None, nodes: Sequence[int] | None, layout: str
) -> None:
    if not tokens or tokens <= 0:
        raise UserError("tokens: how long the training is, is not said; expected a number such as 300e9")
    for name, value in (("days", days), ("budget", budget)):
        if value is not None and not value > 0:
            raise UserError(f"{name}: {value:g} is too small; expected more than 0")
    if nodes is not None and (not nodes or min(nodes) < 1):
        raise UserError(f"nodes: {list(nodes)} is no list of sizes; expected whole numbers from 1 on")
    if layout not in ("search", "scenario"):
        raise UserError(f"layout: {layout!r} is not known; expected search or scenario")


def _gpus_of(topology: str, scenario: Scenario) -> int:
    if topology == scenario.cluster.topology:
        return scenario.resolve().topology.node.gpus

    return load_topology(topology).node.gpus


def _sized(scenario: Scenario, topology: str, nodes: int, tokens: float) -> dict[str, Any]:
    """Keys of the scenario on this cluster. Spares, and failures that are told of the whole job, go with the size."""
    own, job = scenario.cluster.nodes, scenario.job
    values: dict[str, Any] = {
        "cluster.nodes": nodes, "cluster.topology": topology, "parallelism.dp": None, "training.tokens": tokens,
        "job.iterations": None,
    }  # fmt: skip
    if job.spares.nodes:
        values["job.spares.nodes"] = max(1, round(job.spares.nodes * nodes / own))
    if job.failures.job_mtbf is not None:
        values["job.failures.job_mtbf"] = job.failures.job_mtbf * own / nodes
    if isinstance(job.failures.gaps, tuple):
        values["job.failures.gaps"] = [gap * own / nodes for gap in job.failures.gaps]
    return values


def _row(
    scenario: Scenario, values: dict[str, Any], days: float | None, budget: float | None,
    space: Mapping[str, Any] | None, layout: str, runs: int, seed: int, workers: int | None,
) -> dict[str, Any]:  # fmt: skip
    chosen, settings, reason = _best(scenario, values, space, layout, workers)
    if chosen is None:
        return {"fits": False, "reason": reason, "meets": False}
    found = goodput(chosen, runs, seed, workers, what_if=False).metrics
    middle = found["days"]["p50"]
    in_time = days is None or middle <= days
    affordable = budget is None or (found.get("cost_usd") is not None and found["cost_usd"] <= budget)
    row = {
        "days": middle,
        "days_p90": found["days"]["p90"],
        "goodput": found["goodput"],
        "cost_usd": found.get("cost_usd"),
        "energy_kwh": found["energy_kwh"],
        "iteration_time_s": found["iteration_time_s"],
        "layout": {axis: getattr(chosen.resolve().layout, axis) for axis in _AXES},
        "fits": True,
        "reason": "",
        "meets": in_time and affordable,
        "set": settings,
    }
    if days is not None:
        training = chosen.training
        done = floor(found["iterations"] * days / middle)
        row["tokens_in_time"] = float(done * training.global_batch * training.seq_len)
    return row


def _best(
    scenario: Scenario, values: dict[str, Any], space: Mapping[str, Any] | None, layout: str, workers: int | None
) -> tuple[Scenario | None, list[str], str]:
    """The scenario with its layout, `KEY=VALUE` that make it, and where there is none the reason."""
    if layout == "scenario":
        row = run_point(scenario, values)
        if row["status"] != "ok":
            return None, [], row["reason"]
        return scenario.with_values(values), settings_of(scenario, values), ""
    # What is searched from need not be a layout itself: it only names the cluster and the batch.
    base = scenario.with_values({**values, **_anywhere()})
    found = search(base, {**_near(scenario), **(space or {})}, top=1, workers=workers)
    if not found.best:
        return None, [], min((found.why(each) for each in found.layouts), default="no layout is valid")
    values = {**values, **_anywhere(), "simulation.detail": "block", **found.best[0].point}
    return scenario.with_values(values), settings_of(scenario, values), ""


def _anywhere() -> dict[str, Any]:
    """A layout that is valid on any number of nodes, to search from."""
    return {
        "parallelism.tp": 1, "parallelism.pp": 1, "parallelism.vpp": 1, "parallelism.cp": 1, "parallelism.ep": 1,
        "parallelism.etp": None, "parallelism.hsdp": None, "parallelism.schedule": "1f1b", "parallelism.zero": 0,
        "parallelism.stage_layers": None, "training.micro_batch": 1,
    }  # fmt: skip


def _near(scenario: Scenario) -> dict[str, Any]:
    """A space that is searched in seconds: the scenario's own recomputation, overlap and kind of schedule."""
    training = scenario.training
    return {
        "parallelism.schedule": ["1f1b", "interleaved"],
        "parallelism.vpp": [1, 2],
        "parallelism.cp": [scenario.parallelism.cp],
        "parallelism.zero": [1, 3],
        "parallelism.sequence_parallel": [True, False],
        "training.micro_batch": [1, 2],
        "training.recompute": sorted({training.recompute.mode, "full"}),
        "training.overlap": [training.overlap.model_dump()],
    }
