"""Turns what pydantic found into one sentence a mistake: key, value, what is accepted, the nearest known name."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from llmsim.errors import nearest
from llmsim.scenario.fields import show
from llmsim.scenario.outside import outside

_PURPOSE = ("mode", "task", "phase", "workload", "stage", "kind", "method", "algorithm")  # keys people name a task by


def complaints(error: ValidationError, kind: type[BaseModel]) -> list[tuple[str, str]]:
    """(dotted key, rest of the sentence) of every mistake, in the order of the schema."""
    found = error.errors(include_url=False)
    misspelt = {_meant(item, found, kind) for item in found if item["type"] == "extra_forbidden"}
    return [(dotted(item["loc"]), _sentence(item, kind)) for item in found if item["loc"] not in misspelt]


def _meant(item: dict[str, Any], found: list[dict[str, Any]], kind: type[BaseModel]) -> tuple | None:
    """Where the missing key is that an unknown one was meant for: one mistake, which is said once."""
    loc = item["loc"]
    missing = [other["loc"] for other in found if other["type"] == "missing" and other["loc"][:-1] == loc[:-1]]
    hint = _nearest_key(kind, loc)
    return next((other for other in missing if f"did you mean {str(other[-1])!r}" in hint), None)


def dotted(loc: tuple) -> str:
    return ".".join(str(part) for part in loc)


def _sentence(item: dict[str, Any], kind: type[BaseModel]) -> str:
    loc, value = item["loc"], item.get("input")
    match item["type"]:
        case "missing":
            example = _field(kind, loc).examples
            return "missing" + (f"; expected something like {example[0]}" if example else "; this key is required")
        case "extra_forbidden" | "invalid_key":
            told = outside(loc[-1]) or (outside(value) if loc[-1] in _PURPOSE else None)
            return told or f"unknown key{_nearest_key(kind, loc)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            section = _section(kind, loc)
            keys = ", ".join(_key_names(section)) if section else "key: value"
            return f"{show(value)} is not a mapping; expected the keys {keys}"
        case "list_type" | "tuple_type":
            return f"{show(value)} is not a list; expected a list"
        case _:
            return item["msg"]


def _field(kind: type[BaseModel], loc: tuple) -> Any:
    section = _section(kind, loc[:-1]) or kind
    return _fields(section)[str(loc[-1])]


def _fields(section: type[BaseModel]) -> dict[str, Any]:
    """The section's fields by the keys that users write."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _section(kind: type[BaseModel], loc: tuple) -> type[BaseModel] | None:
    """The section that lies at `loc`, list indices passed over."""
    for part in loc:
        if isinstance(part, int):
            continue
        fields = _fields(kind)
        found = _model_in(fields[part].annotation) if part in fields else None
        if found is None:
            return None
        kind = found
    return kind


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _key_names(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


@lru_cache(maxsize=4)
def known_keys(kind: type[BaseModel]) -> tuple[str, ...]:
    """Every dotted key of the schema."""
    return tuple(_walk(kind, ""))


def _walk(kind: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        inner = _model_in(field.annotation)
        if inner:
            yield from _walk(inner, f"{key}.")


def _nearest_key(kind: type[BaseModel], loc: tuple) -> str:
    """The nearest key of the same section, else the same word in another section."""
    section, wrong = _section(kind, loc[:-1]) or kind, str(loc[-1])
    siblings = _key_names(section)
    elsewhere = [key for key in known_keys(kind) if key.rpartition(".")[2] == wrong]
    if elsewhere:
        return f"; did you mean {elsewhere[0]!r}?"
    return nearest(wrong, siblings) or nearest(wrong, known_keys(kind)) or f"; known: {', '.join(siblings)}"
