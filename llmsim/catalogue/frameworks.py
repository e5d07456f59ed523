"""Traits of training frameworks (`measured/frameworks.yaml`): what each does where a scenario leaves it open."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

# Columns of published tables that a rule may ask for, and the keys of a scenario that hold the same.
_KEYS = {"pp": ("parallelism", "pp"), "precision": ("training", "precision"), "zero_stage": ("parallelism", "zero")}


@cache
def framework_data() -> dict[str, Any]:
    """The file: `frameworks` by name, and how the columns of published tables are read."""
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("measured/frameworks.yaml").read_text("utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def frameworks() -> dict[str, dict[str, Any]]:
    """Entries by name: `evidence`, `scenario` (a fragment), perhaps `when` (fragments under a condition)."""
    return framework_data()["frameworks"]


def with_framework(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """A scenario's mapping with the traits of its `training.framework` under it: a key that is given wins.

    An unknown name is left for the schema to complain about.
    """
    training = mapping.get("training")
    name = training.get("framework") if isinstance(training, Mapping) else None
    entry = frameworks().get(name) if isinstance(name, str) else None
    if entry is None:
        return mapping
    traits = entry["scenario"]
    for rule in entry.get("when", ()):
        section, key = _KEYS.get(rule["column"], ("", ""))
        given = mapping.get(section)
        value = given.get(key) if isinstance(given, Mapping) else None
        if value is not None and re.search(rule["match"], str(value)):
            traits = merged(traits, rule["scenario"])
    return merged(traits, mapping)


def merged(mapping: Mapping[str, Any], fragment: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` with the keys of `fragment`, at every depth; lists are replaced."""
    result = dict(mapping)
    for key, value in fragment.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if nested else value
    return result
