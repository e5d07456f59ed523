"""The cheapest changes that make a scenario fit in memory, each simulated in `block` detail."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Any

from llmsim.errors import UserError
from llmsim.memory.shortfall import fullness
from llmsim.scenario import Scenario
from llmsim.simulation import simulate
from llmsim.studies.remedies.changes import KINDS, Settings

_PAIRS = 12  # pairs of changes that are tried when single ones are not enough
_TRIALS = 80  # simulations, after which the search ends with what it has


@dataclass(frozen=True)
class Remedy:
    """Settings that make it fit, and what they cost.

    slowdown: iteration time over that of the scenario as it is (were its memory large enough), minus one; gpu_time:
    the same for iteration time × GPUs.
    """

    settings: Settings
    iteration_time_s: float
    peak_gib: float
    slowdown: float
    gpu_time: float

    @property
    def text(self) -> str:
        """The settings as options of `llmsim run`."""
        # A degree is changed together with dp, which then follows from the GPUs.
        shown = {key: value for key, value in self.settings.items() if value is not None}
        return " ".join(f"--set {_option(key, value)}" for key, value in shown.items())

    def record(self) -> dict[str, Any]:
        return {
            "settings": dict(self.settings),
            "iteration_time_s": self.iteration_time_s,
            "peak_gib": self.peak_gib,
            "slowdown": self.slowdown,
            "gpu_time": self.gpu_time,
        }


def _option(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"'{key}={{{', '.join(f'{name}: {_flow(item)}' for name, item in value.items())}}}'"
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _flow(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class _Tried:
    """One set of changes simulated. ratio: how full the fullest memory is, over the same of the scenario as it is."""

    kinds: frozenset[str]
    remedy: Remedy
    fits: bool
    ratio: float


def remedies(scenario: Scenario, count: int = 3, progress: Callable[[float], None] | None = None) -> list[Remedy]:
    """At most `count` changes that make a scenario fit, of different kinds, cheapest in GPU time first.

    Single changes are tried first, from mild to strong until one fits; then pairs, and in the end ever more of them
    together. One of them keeps the number of GPUs, if any such is enough. Empty where nothing of all this is enough, or
    nothing is needed. The global batch stays as it is.
    """
    trial = _Trials(scenario)
    if trial.fits:
        return []
    report = progress or (lambda share: None)
    tried: list[_Tried] = []
    for number, (kind, settings_of) in enumerate(KINDS.items()):
        report(0.7 * number / len(KINDS))
        tried += _mild_to_strong(trial, kind, settings_of(scenario))
    fitting = [entry for entry in tried if entry.fits]
    if len(fitting) < count:
        report(0.8)
        fitting += list(_together(trial, [entry for entry in tried if not entry.fits], count - len(fitting)))
    own = [entry for entry in tried if "nodes" not in entry.kinds]
    if fitting and len(own) > 2 and not any("nodes" not in entry.kinds for entry in fitting):
        report(0.9)
        grown = _grown(trial, sorted(own, key=lambda entry: entry.ratio))
        fitting += [grown] if grown else []
    report(1.0)
    fitting.sort(key=lambda entry: (entry.remedy.gpu_time, entry.remedy.peak_gib))
    shown = fitting[:count]
    if shown and all("nodes" in entry.kinds for entry in shown):
        shown[-1] = next((entry for entry in fitting if "nodes" not in entry.kinds), shown[-1])
    return [entry.remedy for entry in shown]


class _Trials:
    """Simulates changed copies of one scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario.with_values({"simulation.detail": "block", "simulation.iterations": 1})
        metrics = simulate(self.scenario).metrics
        self.fits = metrics["memory"]["fits"]
        self._time, self._gpus = metrics["iteration_time_s"], metrics["gpus"]
        self._fullness = fullness(metrics["memory"])
        self._left = _TRIALS

    def __call__(self, kinds: frozenset[str], settings: Settings) -> _Tried | None:
        """None where the settings are not valid together with the scenario."""
        self._left -= 1
        if self._left < 0:
            return None
        try:
            metrics = simulate(self.scenario.with_values(settings)).metrics
        except UserError:
            return None
        time, peak = metrics["iteration_time_s"], metrics["memory"]["peak_gib"]
        slowdown = time / self._time
        remedy = Remedy(settings, time, peak, slowdown - 1, slowdown * metrics["gpus"] / self._gpus - 1)
        return _Tried(kinds, remedy, metrics["memory"]["fits"], fullness(metrics["memory"]) / self._fullness)


def _mild_to_strong(trial: _Trials, kind: str, settings: Iterator[Settings]) -> list[_Tried]:
    """The first of a kind that fits, else the one that saves most; nothing where none saves anything."""
    best: _Tried | None = None
    for values in settings:
        entry = trial(frozenset({kind}), values)
        if entry is None or entry.ratio >= 1:
            continue
        if best is None or entry.fits or entry.ratio < best.ratio:
            best = entry
        if entry.fits:
            break
    return [best] if best else []


def _together(trial: _Trials, tried: list[_Tried], wanted: int) -> Iterator[_Tried]:
    """Changes of several kinds together: pairs, the most promising first; if none is enough, ever more of them."""
    found = 0
    apart = (pair for pair in combinations(tried, 2) if _agree(*(entry.remedy.settings for entry in pair)))
    pairs = sorted(apart, key=lambda pair: prod(entry.ratio for entry in pair))
    for pair in pairs[:_PAIRS]:
        entry = _joined(trial, pair)
        if entry is not None and entry.fits:
            found += 1
            yield entry
    strongest = sorted(tried, key=lambda entry: entry.ratio)
    if not found:
        for lead in range(min(wanted, len(strongest) - 2)):
            # Each begins without the strongest changes of those before it, so that the ways differ.
            if entry := _grown(trial, strongest[lead:]):
                yield entry


def _agree(one: Settings, other: Settings) -> bool:
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _grown(trial: _Trials, strongest: list[_Tried]) -> _Tried | None:
    """As many changes as it takes, and then no more than are needed."""
    chosen, fitting = strongest[:2], None
    for entry in strongest[2:]:
        chosen = [*chosen, entry]
        together = _joined(trial, chosen)
        if together is not None and together.fits:
            fitting = together
            break
        if together is None:
            chosen = chosen[:-1]
    if fitting is None:
        return None
    for entry in reversed(chosen[:-1]):
        fewer = [other for other in chosen if other is not entry]
        together = _joined(trial, fewer)
        if together is not None and together.fits:
            chosen, fitting = fewer, together
    return fitting


def _joined(trial: _Trials, entries: Sequence[_Tried]) -> _Tried | None:
    """Later settings win where two kinds set one key (data parallelism, which follows from the others)."""
    settings: dict[str, Any] = {}
    for entry in entries:
        settings |= entry.remedy.settings
    return trial(frozenset().union(*(entry.kinds for entry in entries)), settings)
