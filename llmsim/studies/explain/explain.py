"""`explain`: what bounds a run, what each part of the machine costs it, and which changes would help.

Each part is made free in turn and the run is simulated again; what it then takes less is what that part costs. Parts
hide behind one another, so that these gains need not add up to the iteration.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmsim.errors import UserError
from llmsim.memory.shortfall import shortfalls
from llmsim.program.what_if import FREE, WhatIf
from llmsim.scenario import Scenario
from llmsim.simulation import Result, simulate
from llmsim.studies.explain.changes import Settings, changes
from llmsim.studies.explain.critical import critical_path, on_path

if TYPE_CHECKING:
    import pandas as pd

# What is made free: name: (word of the bottleneck, empty where it is a part of others, physics)
FREE_PARTS: Mapping[str, tuple[str, WhatIf]] = {
    "data that is always there": ("data", WhatIf(loading=False)),
    "infinitely fast arithmetic": ("compute", WhatIf(math=FREE)),
    "infinitely fast GPU memory": ("memory", WhatIf(hbm=FREE)),
    "free communication": ("communication", WhatIf(inside=FREE, between=FREE, latency=FREE, interference=False)),
    "infinite bandwidth inside nodes": ("", WhatIf(inside=FREE)),
    "infinite bandwidth between nodes": ("", WhatIf(between=FREE)),
    "no latency of communication": ("", WhatIf(latency=FREE)),
    "no loss from overlap": ("", WhatIf(interference=False)),
    "no pipeline bubble": ("", WhatIf(waiting=False)),
    "no launch gaps": ("", WhatIf(launch=False)),
}
_LEAST = 0.002  # share of the throughput below which a change is no gain
_ROOMY = ({"training.recompute": "none"}, {"training.recompute": "selective"}, {"parallelism.zero": 0})


@dataclass(frozen=True)
class Free:
    """One part of the machine made free. saved: the share of the iteration that it costs, 0..1."""

    name: str
    word: str
    iteration_time_s: float
    saved: float


@dataclass(frozen=True)
class Change:
    """One change a user could make. gain: how much more throughput it gives, 0.1 for 10% more tokens a second."""

    name: str
    settings: Settings
    iteration_time_s: float
    peak_gib: float
    gain: float


@dataclass(frozen=True)
class Explanation:
    """The answer. `result` is the run as it is; `changes` are those that help and fit, the best first."""

    result: Result = field(repr=False)
    bottleneck: str
    reason: str
    free: list[Free]
    changes: list[Change]

    @cached_property
    def path(self) -> "pd.DataFrame":
        """The critical path (`critical_path`)."""
        return critical_path(self.result.trace)

    @cached_property
    def on_path(self) -> dict[str, float]:
        """Seconds of the critical path by what is done in them, the most first."""
        return on_path(self.path)

    def record(self) -> dict[str, Any]:
        """Plain data, as `llmsim explain --json` prints."""
        return {
            "name": self.result.metrics["name"],
            "iteration_time_s": self.result.metrics["iteration_time_s"],
            "bottleneck": self.bottleneck,
            "bottleneck_reason": self.reason,
            "time_breakdown": self.result.metrics["time_breakdown"],
            "what_if": [vars(each) for each in self.free],
            "critical_path": self.on_path,
            "changes": [vars(each) for each in self.changes],
        }


def explain(scenario: Scenario | Mapping[str, Any], progress: Callable[[float], None] | None = None) -> Explanation:
    """Simulate a scenario as it is, with parts of the machine free, and with changes; in `block` detail.

    Raises the `UserError` of a scenario that is not valid.
    """
    if not isinstance(scenario, Scenario):
        scenario = Scenario(**scenario)
    scenario = scenario.with_values({"simulation.detail": "block"})
    report = progress or (lambda share: None)
    result = simulate(scenario)
    now = result.metrics["iteration_time_s"]
    tries = list(changes(scenario))
    steps = len(FREE_PARTS) + len(tries) + 1
    free = []
    for number, (name, (word, what_if)) in enumerate(FREE_PARTS.items(), 1):
        time = simulate(scenario, what_if=what_if).metrics["iteration_time_s"]
        free.append(Free(name, word, time, 1 - time / now))
        report(number / steps)
    free.append(_twice_the_memory(scenario, result))
    helpful = []
    for number, (name, settings) in enumerate(tries, len(free) + 1):
        if change := _tried(scenario, result, name, settings):
            helpful.append(change)
        report(number / steps)
    helpful.sort(key=lambda change: -change.gain)
    word, reason = _bottleneck(result, free)
    return Explanation(result, word, reason, free, helpful)


def _tried(scenario: Scenario, result: Result, name: str, settings: Settings) -> Change | None:
    """None where it is not valid, does not fit or does not help."""
    try:
        metrics = simulate(scenario.with_values(settings)).metrics
    except UserError:
        return None
    gain = metrics["tokens_per_s"] / result.metrics["tokens_per_s"] - 1
    memory, before = metrics["memory"], result.metrics["memory"]
    if not before["fits"] and memory["fits"]:
        pass  # it runs at all, at whatever speed
    elif gain < _LEAST or not memory["fits"]:
        return None
    return Change(name, settings, metrics["iteration_time_s"], memory["peak_gib"], gain)


def _twice_the_memory(scenario: Scenario, result: Result) -> Free:
    """The fastest of the changes that only memory forbids: less recomputation, larger micro-batches, no sharding."""
    now = best = result.metrics["iteration_time_s"]
    room = 2 * result.metrics["memory"]["capacity_gib"]
    larger = {"training.micro_batch": 2 * scenario.training.micro_batch}
    for settings in (*_ROOMY, larger, {**larger, "training.recompute": "none"}):
        try:
            metrics = simulate(scenario.with_values(settings)).metrics
        except UserError:
            continue
        memory = metrics["memory"]
        if memory["peak_gib"] <= room and all(each.place == "gpu" for each in shortfalls(memory)):
            best = min(best, metrics["iteration_time_s"])
    return Free("twice the memory", "", best, 1 - best / now)


def _bottleneck(result: Result, free: list[Free]) -> tuple[str, str]:
    if not result.metrics["memory"]["fits"]:
        return "memory", result.metrics["bottleneck_reason"]
    worst = max((each for each in free if each.word), key=lambda each: each.saved)
    return worst.word, f"with {worst.name} an iteration would take {worst.saved:.0%} less"
