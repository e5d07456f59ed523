"""`simulate`: from a scenario to its result, through all layers once."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim import __version__
from llmsim.analysis.metrics import bottleneck, bubbles, counts, rates
from llmsim.economics.bill import training_bill
from llmsim.economics.reading import data_metrics, training_tokens
from llmsim.engine.player import Played, play
from llmsim.errors import ScenarioError, SimulationError
from llmsim.memory import Memory, memory_of
from llmsim.program.accounts import account, mean_breakdown
from llmsim.program.build import Program, build_program
from llmsim.program.crossing import network_metrics
from llmsim.program.hbm import memory_bound_share
from llmsim.program.physics import physics_of
from llmsim.program.recording import record
from llmsim.program.what_if import AS_IS, WhatIf
from llmsim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """One simulated scenario. `metrics` is plain data; `trace` and `memory` are made when they are asked for."""

    scenario: Scenario
    metrics: dict[str, Any]
    program: Program = field(repr=False)
    played: Played = field(repr=False)
    footprint: Memory = field(repr=False)

    @cached_property
    def trace(self) -> "pd.DataFrame":
        """One row an op (`llmsim.trace.COLUMNS`)."""
        from llmsim.program.trace import build_trace

        return build_trace(self.program, self.played)

    @property
    def memory(self) -> "pd.DataFrame":
        """rank, time_s, allocated_bytes, category: what a rank of each class holds from a time on."""
        return self.footprint.frame


def simulate(
    scenario: Scenario | Mapping[str, Any],
    progress: Callable[[float], None] | None = None,
    what_if: WhatIf = AS_IS,
) -> Result:
    """Simulate a scenario, under other physics if `what_if` says so.

    Raises the `UserError` of whatever does not fit together.
    """
    began = time.perf_counter()
    if not isinstance(scenario, Scenario):
        scenario = Scenario(**scenario)
    with _no_garbage(), _blaming(scenario.faults):
        program = build_program(scenario, physics_of(scenario, what_if))
        played = play(program.plan, steps=scenario.simulation.detail == "kernel", progress=progress)
        footprint = memory_of(scenario, program, played)
        metrics = _metrics(scenario, program, played, footprint.summary)
    metrics["simulation"] = {
        "events": played.events,
        "classes": len(program.classes.count),
        "ranks": len(program.classes.of_rank),
        "detail": scenario.simulation.detail,
        "wall_s": time.perf_counter() - began,
        "version": __version__,
    }
    return Result(scenario, metrics, program, played, footprint)


@contextmanager
def _blaming(faults: Sequence[object]) -> Iterator[None]:
    """What cannot go on is the user's doing where links or GPUs were taken away, and a bug otherwise."""
    try:
        yield
    except SimulationError as error:
        if faults:
            raise ScenarioError(f"faults: {error}") from None
        raise


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Without Python's cycle collector: a program is a million small tuples that all stay, which it would search."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _metrics(scenario: Scenario, program: Program, played: Played, memory: dict[str, Any]) -> dict[str, Any]:
    resolved, training = scenario.resolve(), scenario.training
    layout, count = resolved.layout, program.classes.count
    accounts = account(record(program, played))
    iteration = accounts.iteration
    tokens = training.global_batch * training.seq_len
    share = count / count.sum()
    breakdown = mean_breakdown(accounts, count)
    peak = resolved.topology.gpu.peak(training.precision)
    metrics: dict[str, Any] = {
        "name": scenario.name,
        "gpus": layout.ranks,
        "layout": {key: getattr(layout, key) for key in ("tp", "pp", "vpp", "cp", "ep", "dp", "micro_batches")},
        **counts(resolved.architecture, training.seq_len),
        **rates(
            resolved.architecture, training.seq_len, tokens, layout.ranks, peak, iteration,
            float((accounts.flops * count).sum()), float((accounts.peak_seconds * count).sum()),
        ),
        **bubbles(accounts.waiting, accounts.busy, accounts.window[1] - accounts.window[0], program.stage_of, count),
        "time_breakdown": breakdown,
        "overlap": {
            group: float((accounts.hidden[group] * count).sum() / (total * count).sum())
            for group, total in sorted(accounts.total.items())
            if (total * count).sum() > 0
        },
    }  # fmt: skip
    bound = memory_bound_share(program, peak, resolved.topology.gpu.memory_bandwidth)
    metrics["memory"] = memory
    metrics["network"] = network_metrics(program, played, iteration)
    metrics["launch_wait_s"] = float((accounts.launching * share).sum())
    metrics |= bottleneck(breakdown, memory, bound, metrics["launch_wait_s"])
    metrics |= data_metrics(scenario, metrics["tokens_per_s"], breakdown["data"] / iteration)
    if wanted := training_tokens(scenario):
        metrics["time_to_train_s"] = float(np.ceil(wanted / tokens) * iteration)
        metrics |= training_bill(scenario, metrics["time_to_train_s"], breakdown)
    return metrics
