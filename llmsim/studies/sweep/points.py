"""Which points a sweep visits: grids, ranges, zipped keys and plain lists, as lists of dotted keys and values.

A grid maps dotted keys to lists of values, or to a range `{"range": [16, 64, 16]}` (first, last included, step) or
`{"range": [1, 64, "x2"]}` (doubling). Several keys in one, `"parallelism.tp, parallelism.pp": [[8, 1], [4, 2]]`, go
together. Points come in the order of the keys, the last one varying fastest.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from llmsim.errors import UserError

Point = dict[str, Any]

MOST = 1_000_000  # points of one sweep; more is a slip of the pen


def expand(grid_or_points: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[Point]:
    """The points of a grid, or the given points as they are. Raises `UserError` when there is nothing to visit."""
    if isinstance(grid_or_points, Mapping):
        return expand_grid(grid_or_points)
    if isinstance(grid_or_points, str) or not isinstance(grid_or_points, Sequence):
        expected = "a mapping of dotted keys to values, or a list of them"
        raise UserError(f"{grid_or_points!r} is no grid; expected {expected}")
    points = []
    for number, point in enumerate(grid_or_points):
        if not isinstance(point, Mapping):
            raise UserError(f"points[{number}]: {point!r} is no mapping of dotted keys to values")
        points.append(dict(point))
    if not points:
        raise UserError("points: the list is empty; expected at least one point")
    return points


def expand_grid(grid: Mapping[str, Any]) -> list[Point]:
    """All combinations of the values of all keys."""
    axes = [_axis(str(key), values) for key, values in grid.items()]
    count = 1
    for axis in axes:
        count *= len(axis)
    if count > MOST:
        raise UserError(f"grid: {count:,} combinations are more than the {MOST:,} that one sweep may have")
    result = []
    for combination in product(*axes):
        point: Point = {}
        for part in combination:
            point |= part
        result.append(point)
    return result


def zipped(columns: Mapping[str, Any]) -> list[Point]:
    """Keys whose first values go together, then their second ones, and so on."""
    lists = {str(key): values_of(str(key), values) for key, values in columns.items()}
    lengths = {key: len(values) for key, values in lists.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise UserError(f"zip: keys that go together need equally many values; {counts}")
    return [dict(zip(lists, row)) for row in zip(*lists.values())]


def values_of(key: str, values: Any) -> list[Any]:
    """The values of one key: a list, a range, or a single value."""
    if isinstance(values, Mapping) and set(values) == {"range"}:
        return _range(key, values["range"])
    if isinstance(values, range):
        return list(values)
    if hasattr(values, "tolist"):
        values = values.tolist()  # numpy arrays and pandas series
    if not isinstance(values, list | tuple):
        return [values]
    if not values:
        raise UserError(f"{key}: the list of values is empty; expected at least one")
    return list(values)


def _axis(key: str, values: Any) -> list[Point]:
    names = [name.strip() for name in key.split(",")]
    found = values_of(key, values)
    if len(names) == 1:
        return [{key: value} for value in found]
    for value in found:
        if not isinstance(value, list | tuple) or len(value) != len(names):
            raise UserError(f"{key}: {value!r} does not give each of the {len(names)} keys a value")
    return [dict(zip(names, value)) for value in found]


def _range(key: str, limits: Any) -> list[Any]:
    hint = "expected range: [first, last, step], such as [16, 64, 16], or [1, 64, x2] to double"
    if not isinstance(limits, list | tuple) or len(limits) not in (2, 3):
        raise UserError(f"{key}: {limits!r} is no range; {hint}")
    first, last, step = (*limits, 1)[:3]
    factor = step.startswith("x") and step[1:] if isinstance(step, str) else None
    try:
        amount = float(factor) if factor else float(step)
        number, end = float(first), float(last)
    except (TypeError, ValueError):
        raise UserError(f"{key}: {limits!r} is no range; {hint}") from None
    grows = amount > 1 and number > 0 if factor else amount > 0
    if not grows or end < number:
        raise UserError(f"{key}: the range {limits!r} does not grow from its first value to its last; {hint}")
    whole = all(float(x).is_integer() for x in (number, amount))
    result: list[Any] = []
    index = 0
    while True:
        value = number * amount**index if factor else number + amount * index
        if value > end * (1 + 1e-12) or len(result) > MOST:
            return result
        result.append(int(value) if whole else value)
        index += 1
