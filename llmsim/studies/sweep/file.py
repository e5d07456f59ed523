"""Sweep files: which scenario, what is changed throughout, and which points.

```yaml
scenario: gpt3-175b-a100-1024.yaml     # beside this file, or a name such as gpt3-175b-a100-1024
set: {training.micro_batch: 2}         # at every point
grid:                                  # all combinations
  cluster.nodes: {range: [16, 128, x2]}
  parallelism.tp: [4, 8]
zip:                                   # first values together, then second ones
  parallelism.schedule: [1f1b, interleaved]
  parallelism.vpp: [1, 2]
points:                                # or given one by one
  - {training.recompute: full}
```

Where a file has several of grid, zip and points, all combinations of theirs are visited.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from llmsim.documents import read_document
from llmsim.errors import UserError, nearest
from llmsim.scenario import Scenario, load_scenario
from llmsim.scenario.load import find_scenario
from llmsim.studies.sweep.points import MOST, Point, expand, expand_grid, zipped

_KEYS = ("scenario", "description", "set", "grid", "zip", "points")


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file says: a scenario and the points to visit."""

    scenario: Scenario
    points: list[Point]


def load_sweep(path: str | Path) -> SweepFile:
    """Read a sweep file: a path, the name of a shipped one, or `-` for standard input.

    Raises `UserError` with the file, the key and what is accepted.
    """
    path = find_scenario(path)
    if str(path) != "-" and not path.exists():
        raise UserError(f"{path}: there is no such sweep file")
    data = read_document(path, UserError, "a sweep in YAML: scenario, and grid, zip or points").data
    if not isinstance(data, dict):
        raise UserError(f"{path}: a sweep is a mapping with scenario, and grid, zip or points")
    if "cluster" in data and "scenario" not in data:
        raise UserError(f"{path}: this is a scenario, not a sweep; name it in one, as scenario: {Path(path).name}")
    for key in data:
        if key not in _KEYS:
            raise UserError(f"{path}: {key}: unknown key{nearest(key, _KEYS)}; expected {', '.join(_KEYS)}")
    if not isinstance(data.get("scenario"), str):
        raise UserError(f"{path}: scenario: missing; expected a scenario file, relative to this one, or a name")
    always = _mapping(path, "set", data.get("set") or {})
    scenario = load_scenario(find_scenario(data["scenario"], path.parent))
    try:
        axes = _axes(path, data)
    except UserError as error:
        raise UserError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    if not axes:
        raise UserError(f"{path}: nothing to sweep; expected at least one of grid, zip and points")
    points = []
    for parts in product(*axes):
        point: Point = dict(always)
        for part in parts:
            point |= part
        points.append(point)
        if len(points) > MOST:
            raise UserError(f"{path}: more than {MOST:,} points")
    return SweepFile(scenario, points)


def _axes(path: str | Path, data: dict[str, Any]) -> list[list[Point]]:
    axes = []
    if data.get("grid"):
        axes.append(expand_grid(_mapping(path, "grid", data["grid"])))
    if data.get("zip"):
        axes.append(zipped(_mapping(path, "zip", data["zip"])))
    if data.get("points") is not None:
        points = data["points"]
        if not isinstance(points, list):
            raise UserError(f"{path}: points: {points!r} is no list; expected entries such as {{cluster.nodes: 4}}")
        axes.append(expand(points))
    return axes


def _mapping(path: str | Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key}: {value!r} is no mapping; expected dotted keys, as {{cluster.nodes: [1, 2]}}")
    return value
