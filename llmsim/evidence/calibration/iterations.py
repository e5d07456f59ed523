"""Speeds of a cluster from measured iterations: scenarios with the time that each took."""

from collections.abc import Callable, Mapping
from pathlib import Path

from llmsim.catalogue.calibration import SPEEDS
from llmsim.documents import read_document
from llmsim.errors import ScenarioError, UnitError, nearest
from llmsim.evidence.calibration.estimate import estimate
from llmsim.evidence.calibration.result import Calibration, constant, order
from llmsim.program.what_if import WhatIf
from llmsim.scenario import Scenario, load_scenario
from llmsim.scenario.load import find_scenario
from llmsim.simulation import simulate
from llmsim.units import parse_quantity

_KEYS = ("scenario", "set", "time")


def calibrate_iterations(path: str | Path, progress: Callable[[float], None] | None = None) -> Calibration:
    """Fit the speeds of arithmetic, HBM, links inside nodes and between them, all times the catalogue's.

    The file is a list of {scenario: FILE, set: {key: value}, time: 12.3 s}; `set` may be left out.
    Raises `ScenarioError` for an entry that cannot be read.
    """
    runs = read_runs(path)
    rounds, done = 4, 0
    total = len(runs) * (1 + rounds * (len(SPEEDS) + 1))

    def predict(factors: Mapping[str, float]) -> list[float]:
        nonlocal done
        times = []
        for scenario, _ in runs:
            times.append(simulate(scenario, what_if=WhatIf(**factors)).metrics["iteration_time_s"])
            done += 1
            if progress:
                progress(done / total)
        return times

    found, before, after = estimate(predict, [seconds for _, seconds in runs], SPEEDS, rounds)
    fitted = [constant(("speeds", e.name), e) for e in found]
    return Calibration(str(path), f"measured iteration{'s' * (len(runs) > 1)}", order(fitted), before, after)


def read_runs(path: str | Path) -> list[tuple[Scenario, float]]:
    """(scenario, seconds) of each entry; scenario files are relative to this file."""
    data = read_document(path, ScenarioError, "measured iterations in YAML").data
    if not isinstance(data, list) or not data:
        raise ScenarioError(f"{path}: expected a list of entries such as {{scenario: run.yaml, time: 12.3 s}}")
    return [_run(entry, number, Path(path)) for number, entry in enumerate(data)]


def _run(entry: object, number: int, path: Path) -> tuple[Scenario, float]:
    place = f"{path}: [{number}]"
    if not isinstance(entry, Mapping) or "scenario" not in entry or "time" not in entry:
        raise ScenarioError(f"{place}: {entry!r} is no entry; expected {{scenario: run.yaml, time: 12.3 s}}")
    for key in entry:
        if key not in _KEYS:
            known = f"expected {', '.join(_KEYS)}{nearest(key, _KEYS)}"
            raise ScenarioError(f"{place}: {key}: this key is unknown; {known}")
    try:
        seconds = parse_quantity(entry["time"], "time")
    except UnitError as error:
        raise ScenarioError(f"{place}: time: {error}") from None
    if seconds <= 0:
        raise ScenarioError(f"{place}: time: {entry['time']!r} is out of range; expected more than 0")
    changes = {"simulation.detail": "block"} | dict(entry.get("set") or {})
    return load_scenario(find_scenario(str(entry["scenario"]), path.parent)).with_values(changes), seconds
