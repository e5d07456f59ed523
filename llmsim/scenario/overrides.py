"""`--set KEY=VALUE` on a scenario: the mapping with one key at a dotted path replaced."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from llmsim.documents import parse_value, spoken
from llmsim.errors import ScenarioError
from llmsim.scenario.fields import show


def parse_override(text: str) -> tuple[str, object]:
    """`training.micro_batch=2` as a key and a YAML value."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ScenarioError(f"--set {text}: expected key=value, such as training.micro_batch=2")
    return key.strip(), parse_value(value, f"--set {key.strip()}", ScenarioError)


def overridden(data: Mapping[str, Any], values: Mapping[str, object]) -> dict[str, Any]:
    """A deep copy of `data` with dotted keys replaced; whether the keys exist is for the schema to say."""
    result = deepcopy(dict(data))
    for key, value in values.items():
        _put(result, key.split("."), deepcopy(value), key)  # a later key may reach into it
    return result


def _put(place: Any, parts: list[str], value: object, key: str) -> None:
    for depth, part in enumerate(parts):
        inside_overrides = depth == 2 and parts[:2] == ["cluster", "overrides"]
        if isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                raise ScenarioError(f"--set {key}: {part!r} is not an index of a list of {len(place)}")
            part = int(part)
        elif not isinstance(place, dict):
            above = spoken(".".join(parts[:depth]))
            raise ScenarioError(f"--set {key}: {above} is {show(place)}, which has no keys inside")
        if depth == len(parts) - 1 or inside_overrides:
            place[".".join(parts[depth:]) if inside_overrides else part] = value
            return
        if isinstance(place, dict) and place.get(part) is None:
            place[part] = {}
        place = place[part]
