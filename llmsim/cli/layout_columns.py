"""Layouts as rows of a table: a column for each key that tells two of them apart, the others said once."""

from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = {
    "training.micro_batch": "mb",
    "parallelism.sequence_parallel": "seq. par.",
    "parallelism.stage_layers": "stages",
}


def columns(points: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """By name: the cells of all points, of a key that differs; and the one cell of a key that is the same in all.

    No two different points have the same cells.
    """
    keys = list(dict.fromkeys(key for point in points for key in point))
    names = _named(keys)
    differing, same = {}, {}
    for key in keys:
        cells = _cells(["even" if _evenly(key, point) else point.get(key) for point in points])
        if len(set(cells)) > 1:
            differing[names[key]] = cells
        else:
            same[names[key]] = cells[0]
    return differing, same


def _evenly(key: str, point: Mapping[str, Any]) -> bool:
    return key == "parallelism.stage_layers" and point.get(key) is None


def _named(keys: Sequence[str]) -> dict[str, str]:
    """Short names: the last part of a key, all of it where that is another's too."""
    short = {key: _NAMES.get(key, key.rpartition(".")[2]) for key in keys}
    return {key: name if list(short.values()).count(name) == 1 else key for key, name in short.items()}


def _cells(values: Sequence[object]) -> list[str]:
    """Values of one key as texts: of sections what tells them apart, in one word where one says it all."""
    sections = [value for value in values if isinstance(value, Mapping)]
    items = list(dict.fromkeys(item for section in sections for item in section))
    items = [item for item in items if len({_word(section.get(item)) for section in sections}) > 1]
    alike = all(len({_word(section.get(item)) for item in items}) == 1 for section in sections)
    cells = []
    for value in values:
        if not isinstance(value, Mapping) or not items:
            cells.append(_word(value))
        elif alike:
            cells.append(_word(value.get(items[0])))
        else:
            cells.append(", ".join(f"{item} {_word(value.get(item))}" for item in items))
    return cells


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_word(item)}" for key, item in value.items()) + "}"
    return "–" if value is None else str(value)
