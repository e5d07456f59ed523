"""One point simulated, as one flat row. Runs in workers; whatever goes wrong with the point becomes part of the row."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmsim.errors import LlmsimError, UserError
from llmsim.memory.shortfall import shortfalls
from llmsim.scenario.overrides import overridden
from llmsim.simulation import simulate

if TYPE_CHECKING:
    from llmsim.scenario import Scenario

Row = dict[str, Any]

STATUSES = ("ok", "out_of_memory", "invalid", "failed")
_NOT_A_RESULT = ("simulation.wall_s",)  # differs from run to run


def run_point(scenario: "Scenario", point: Mapping[str, Any]) -> Row:
    """`status`, `reason`, and the metrics of `scenario` with the dotted keys of `point` changed.

    status: ok; out_of_memory (metrics are given all the same); invalid (a `UserError`); failed (a bug in llmsim).
    """
    try:
        changed = scenario.with_values({"simulation.detail": "block", **point})
        metrics = simulate(changed).metrics
    except UserError as error:
        return {"status": "invalid", "reason": "; ".join(str(error).splitlines())}
    except Exception as error:
        kind = "" if isinstance(error, LlmsimError) else f"{type(error).__name__}: "
        return {"status": "failed", "reason": f"{kind}{error}"}
    short = "; ".join(each.brief for each in shortfalls(metrics["memory"]))
    row: Row = {"status": "out_of_memory" if short else "ok", "reason": short}
    return row | flatten(metrics)


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> Row:
    """Nested mappings as dotted keys; lists, such as the memory of each stage, as JSON text."""
    row: Row = {}
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            row |= flatten(value, f"{name}.")
        elif name not in _NOT_A_RESULT:
            row[name] = json.dumps(value) if isinstance(value, list | tuple) else value
    return row


def key_of(scenario: "Scenario", point: Mapping[str, Any]) -> str:
    """A hash of everything that the result depends on: the scenario with the point's values, and llmsim's version."""
    from importlib.metadata import version

    try:
        mapping: Any = overridden(scenario._given, point)
    except UserError:
        mapping = [scenario._given, dict(point)]  # a key that cannot be set; the row will say so
    text = json.dumps([version("llmsim"), mapping], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
