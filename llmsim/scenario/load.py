"""Reads scenario files, keeping the line of every key, and applies dotted overrides (`--set a.b=1`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmsim.catalogue.shipped import shipped
from llmsim.documents import read_document
from llmsim.errors import ScenarioError, nearest
from llmsim.files import STANDARD_INPUT, TABLES, shown
from llmsim.scenario.origin import Origin
from llmsim.scenario.overrides import overridden, parse_override
from llmsim.scenario.schema import Scenario


def load_scenario(path: str | Path, overrides: Sequence[str] | Mapping[str, object] = ()) -> Scenario:
    """The scenario of a YAML or JSON file. `overrides`: `["training.micro_batch=2"]`, or a mapping of dotted keys.

    `path` may also be the name of a scenario that comes with llmsim (`quickstart`), or `-` for standard input.

    Raises `ScenarioError`, one line for each mistake: file and line, key, value, what is accepted.
    """
    file = find_scenario(path)
    data, lines = read_scenario(file, str(path))
    origin = Origin(shown(file), lines)
    values = overrides if isinstance(overrides, Mapping) else dict(parse_override(text) for text in overrides)
    if values:
        data = overridden(data, values)
        origin = origin.with_overrides(values, "--set ")
    return Scenario.from_mapping(data, origin)


def find_scenario(path: str | Path, folder: Path = Path()) -> Path:
    """The file that `path` means: in `folder`, where llmsim was called, or the shipped one of this name.

    `-`, standard input, stays as it is, and so does what is not found: reading it says so.
    """
    path = Path(path)
    if path != STANDARD_INPUT:
        for file in (folder / path, path):
            if file.is_file():
                return file
    return shipped("scenarios").get(str(path), path)


def read_scenario(path: str | Path, name: str = "") -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping of a scenario file, and the 1-based line of each dotted key; says so where it is another file.

    name: what a command calls the file, where that is not its path.
    """
    place = Path(path)
    if place != STANDARD_INPUT and not place.exists():
        raise ScenarioError(f"{path}: there is no such scenario file{_near(place)}")
    path = shown(place)
    if place.suffix.lower() in TABLES:
        raise ScenarioError(f"{path}: {_A_TABLE}")
    document = read_document(place, ScenarioError, "a scenario file in YAML or JSON")
    data = document.data
    if not isinstance(data, dict):
        if isinstance(data, str) and "," in data.split(" ", 1)[0]:
            raise ScenarioError(f"{path}: {_A_TABLE}")
        raise ScenarioError(f"{path}: a scenario is a mapping with name, model, cluster, parallelism and training")
    for keys, what in _OTHERS:
        if keys <= data.keys() and "cluster" not in data:
            raise ScenarioError(f"{path}: {what.format(path=name or path)}")
    return data, dict(document.lines)


_A_TABLE = "this is a table, not a scenario; `llmsim plot` draws a trace, `llmsim validate --table` takes measured runs"
_OTHERS = (  # keys by which other files are known, and what to do with them
    (
        {"model_type"},
        "this is a Hugging Face config.json, not a scenario; name it in a scenario as model: {path}, "
        "or add --set model={path} to one",
    ),
    ({"node", "network"}, "this is a topology, not a scenario; name it in a scenario as cluster.topology: {path}"),
    ({"scenario", "grid"}, "this is a sweep, not a scenario; run it with `llmsim sweep {path} -o OUT.csv`"),
    ({"scenario", "zip"}, "this is a sweep, not a scenario; run it with `llmsim sweep {path} -o OUT.csv`"),
    ({"scenario", "points"}, "this is a sweep, not a scenario; run it with `llmsim sweep {path} -o OUT.csv`"),
)


def _near(path: Path) -> str:
    names = shipped("scenarios")
    near = [*names, *(str(file) for file in sorted(path.parent.glob("*.yaml")))]
    hint = f"; did you mean {path.stem!r}?" if path.stem in names else nearest(path, near)
    return hint or "; `llmsim scenarios` lists those that can be named"
