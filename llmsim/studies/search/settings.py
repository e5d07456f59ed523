"""A layout as the `--set` options that reproduce it."""

import json
from collections.abc import Mapping
from typing import Any

from llmsim.errors import UserError
from llmsim.scenario import Scenario
from llmsim.scenario.overrides import parse_override

_ABSENT = object()


def settings_of(scenario: Scenario, values: Mapping[str, Any]) -> list[str]:
    """`KEY=VALUE` for each key of `values`, but those where the scenario says the same already.

    The scenario with them (`load_scenario(path, settings)`, `--set`) is the scenario `with_values(values)`.
    """
    return [f"{key}={_text(key, value)}" for key, value in values.items() if not _says(scenario, key, value)]


def _says(scenario: Scenario, key: str, value: object) -> bool:
    if scenario.training.framework is None:
        return bool(_plain(_at(scenario, key)) == value)
    # What a framework chooses may be something else in another layout; only what is given stays.
    return _at(scenario._given, key) == value


def _at(place: object, key: str) -> object:
    for part in key.split("."):
        place = place.get(part, _ABSENT) if isinstance(place, Mapping) else getattr(place, part, _ABSENT)
    return place


def _plain(value: Any) -> object:
    """A section as a search says it: recomputation by its mode where that is all, else as a mapping."""
    if not hasattr(value, "model_dump"):
        return list(value) if isinstance(value, tuple) else value
    mode = getattr(value, "mode", None)
    return mode if mode is not None and value == type(value)(mode=mode) else value.model_dump()


def _text(key: str, value: object) -> str:
    """The value in YAML: a word as it is where it is read back as one."""
    if isinstance(value, str):
        try:
            if parse_override(f"{key}={value}") == (key, value):
                return value
        except UserError:
            pass
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_text(key, item)}" for name, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
