"""Reads scenario files, keeping the line of every key, and applies dotted overrides (`--set a.b=1`)."""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from llmsim.catalogue.shipped import shipped
from llmsim.errors import ScenarioError, nearest
from llmsim.scenario.fields import show
from llmsim.scenario.origin import Origin, spoken
from llmsim.scenario.schema import Scenario

_STDIN = Path("-")


def load_scenario(path: str | Path, overrides: Sequence[str] | Mapping[str, object] = ()) -> Scenario:
    """The scenario of a YAML or JSON file. `overrides`: `["training.micro_batch=2"]`, or a mapping of dotted keys.

    `path` may also be the name of a scenario that comes with llmsim (`quickstart`), or `-` for standard input.

    Raises `ScenarioError`, one line for each mistake: file and line, key, value, what is accepted.
    """
    file = find_scenario(path)
    data, lines = read_mapping(file)
    if "scenario" in data and "cluster" not in data:
        raise ScenarioError(f"{path}: this is a sweep, not a scenario; try llmsim sweep {path} -o OUT.csv")
    origin = Origin(_shown(file), lines)
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
    if path != _STDIN:
        for file in (folder / path, path):
            if file.is_file():
                return file
    return shipped("scenarios").get(str(path), path)


def parse_override(text: str) -> tuple[str, object]:
    """`training.micro_batch=2` as a key and a YAML value."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ScenarioError(f"--set {text}: expected key=value, such as training.micro_batch=2")
    try:
        return key.strip(), yaml.load(value, _loader())
    except yaml.YAMLError:
        raise ScenarioError(f"--set {text}: the value {value!r} is not YAML; quote it") from None


def overridden(data: Mapping[str, Any], values: Mapping[str, object]) -> dict[str, Any]:
    """A deep copy of `data` with dotted keys replaced; whether the keys exist is for the schema to say."""
    result = deepcopy(dict(data))
    for key, value in values.items():
        _put(result, key.split("."), value, key)
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


def read_mapping(path: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping that a YAML or JSON file (`-`: standard input) holds, and the 1-based line of each dotted key."""
    text = _text(Path(path))
    path = _shown(path)
    try:
        node = _node(text)
    except yaml.YAMLError as error:
        if Path(path).suffix == ".json":
            return _json(path, text), {}
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ScenarioError(f"{path}{line}: this is not YAML: {' '.join(problem.split())}") from None
    if not isinstance(node, yaml.MappingNode):
        raise ScenarioError(f"{path}: a scenario is a mapping with name, model, cluster, parallelism and training")
    lines: dict[str, int] = {}
    _index(node, "", lines, str(path), ())
    if "model_type" in lines and "cluster" not in lines:
        told = f"name it in a scenario as model: {path}, or add --set model={path} to one"
        raise ScenarioError(f"{path}: this is a Hugging Face config.json, not a scenario; {told}")
    loader = _loader()("")
    try:
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        raise ScenarioError(f"{path}: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()


def _shown(path: str | Path) -> str:
    return "standard input" if Path(path) == _STDIN else str(path)


def _text(path: Path) -> str:
    if path == _STDIN:
        return _decoded(sys.stdin.buffer.read, path)
    if not path.exists():
        names = shipped("scenarios")
        near = [*names, *(str(file) for file in sorted(path.parent.glob("*.yaml")))]
        hint = f"; did you mean {path.stem!r}?" if path.stem in names else nearest(path, near)
        hint = hint or "; `llmsim scenarios` lists those that can be named"
        raise ScenarioError(f"{path}: there is no such scenario file{hint}")
    if path.is_dir():
        raise ScenarioError(f"{path}: this is a folder; expected a scenario file in YAML or JSON")
    return _decoded(path.read_bytes, path)


def _decoded(read: Callable[[], bytes], path: Path) -> str:
    try:
        return read().decode("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise ScenarioError(f"{_shown(path)}: this cannot be read as UTF-8 text ({error})") from None


def _node(text: str) -> yaml.Node | None:
    loader = _loader()(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _json(path: str | Path, text: str) -> dict[str, Any]:
    """For JSON that YAML cannot read, such as one indented with tabs."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ScenarioError(f"{path}:{error.lineno}: this is not JSON: {error.msg}") from None
    if not isinstance(data, dict):
        raise ScenarioError(f"{path}: a scenario is a mapping with name, model, cluster, parallelism and training")
    return data


@lru_cache(maxsize=1)
def _loader() -> type:
    """YAML 1.2 scalars on PyYAML: `off` and `no` are words, 300e9 is a number, 1:30 is not one, dates are text."""

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        yaml_implicit_resolvers: dict = {}  # noqa: RUF012  PyYAML's own class attribute

    tag = "tag:yaml.org,2002:"
    number = r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    special = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    Loader.add_implicit_resolver(f"{tag}bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
    Loader.add_implicit_resolver(f"{tag}int", re.compile(r"^[-+]?\d[\d_]*$"), list("-+0123456789"))
    Loader.add_implicit_resolver(f"{tag}float", re.compile(f"^(?:{number}|{special})$"), list("-+0123456789."))
    Loader.add_implicit_resolver(f"{tag}null", re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
    Loader.add_implicit_resolver(f"{tag}merge", re.compile("^<<$"), ["<"])
    Loader.add_constructor(f"{tag}int", lambda loader, node: int(node.value.replace("_", "")))
    return Loader


def _index(node: yaml.Node, prefix: str, lines: dict[str, int], path: str, above: tuple[int, ...]) -> None:
    """Fill `lines`, refusing keys given twice (YAML would silently keep the last)."""
    if id(node) in above:
        raise ScenarioError(f"{path}: an anchor contains itself at {prefix.rstrip('.')}")
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in seen and name != "<<":
                first = f"first on line {seen[name]}"
                raise ScenarioError(f"{path}:{line}: {spoken(prefix + name)}: this key is given twice, {first}")
            seen[name] = line
            lines[prefix + name] = line
            _index(value, f"{prefix}{name}.", lines, path, above)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            lines[f"{prefix}{position}"] = value.start_mark.line + 1
            _index(value, f"{prefix}{position}.", lines, path, above)
