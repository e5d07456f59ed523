"""`simulate`: from a scenario to its result, through all layers once."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmsim import __version__
from llmsim.analysis.played.trace_rows import build_trace
from llmsim.analysis.result_metrics import result_metrics
from llmsim.engine.player import Played, play
from llmsim.errors import ScenarioError, SimulationError
from llmsim.memory import Memory, memory_of
from llmsim.program.build import build_program
from llmsim.program.physics import physics_of
from llmsim.program.program import Program
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
        metrics = result_metrics(scenario, program, played, footprint.summary)
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
