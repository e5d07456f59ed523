"""YAML and JSON as people write them, read within bounds: what is too large, too deep or no text is refused.

Values are those of YAML 1.2: `off` and `no` are words, 300e9 is a number, 1:30 is not one, dates are text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from llmsim.errors import UserError
from llmsim.files import read_text, shown

MOST_VALUES = 300_000  # of one YAML document, aliases written out; the placement of 100,000 ranks is the largest known
DEEPEST = 64  # levels of lists and mappings
LONGEST_NUMBER = 100  # digits of a whole number; far above any quantity, and a float still holds it


@dataclass(frozen=True)
class Document:
    """What a file holds, and the 1-based line of each dotted key (none for JSON that YAML cannot read)."""

    data: Any
    lines: Mapping[str, int] = field(default_factory=dict)


def read_document(path: str | Path, error: type[UserError], expected: str) -> Document:
    """The YAML or JSON document of a file.

    Raises `error` in one sentence, with the line: no such file, no text, no YAML, a key that is given twice, or a
    document that is too large or too deep. expected: what the file should have been, as `a topology in YAML`.
    """
    text = read_text(path, error, expected)
    try:
        return _yaml(text, shown(path), error)
    except yaml.YAMLError as wrong:
        if Path(path).suffix.lower() == ".json":  # JSON that YAML cannot read, such as one indented with tabs
            return Document(parse_json(text, shown(path), error))
        raise error(_said(shown(path), text, wrong)) from None


def read_json(path: str | Path, error: type[UserError], expected: str) -> Any:
    """The JSON document of a file, for what may be larger than `MOST_VALUES`. Raises `error` in one sentence."""
    return parse_json(read_text(path, error, expected), str(path), error)


def parse_json(text: str, where: str, error: type[UserError]) -> Any:
    """The JSON document `text`; `where` begins the sentence of `error`."""

    def whole(digits: str) -> int:
        if len(digits) > LONGEST_NUMBER:
            raise error(f"{where}: {_long(digits)}")
        return int(digits)

    try:
        data = json.loads(text, parse_int=whole)
    except json.JSONDecodeError as wrong:
        raise error(f"{where}:{wrong.lineno}: this is not JSON: {wrong.msg}") from None
    except RecursionError:
        raise error(f"{where}: {_DEEP}") from None
    if _deeper(data, DEEPEST):
        raise error(f"{where}: {_DEEP}")
    return data


def parse_value(text: str, where: str, error: type[UserError]) -> Any:
    """A YAML value from the command line; `where` begins the sentence of `error`."""
    try:
        return _yaml(text, where, error).data
    except yaml.YAMLError:
        raise error(f"{where}: the value {text[:60]!r} is not YAML; quote it") from None


_DEEP = f"lists and mappings inside each other are more than {DEEPEST} deep; expected fewer"


def _long(digits: str) -> str:
    return f"a number of {len(digits)} digits, {digits[:12]}…; expected at most {LONGEST_NUMBER} digits"


def _yaml(text: str, where: str, error: type[UserError]) -> Document:
    loader = _loader()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(None)
        count = _size(node, {}, (), where, error)
        if count > MOST_VALUES:
            raise error(f"{where}: {count:,} values, aliases written out; expected at most {MOST_VALUES:,}")
        lines: dict[str, int] = {}
        _index(node, "", lines, where, error)
        return Document(loader.construct_document(node), lines)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int], above: tuple[int, ...], where: str, error: type[UserError]) -> int:
    """Values in a node, counted as often as aliases repeat them; anchors that hold themselves are refused."""
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1
    if id(node) in above:
        raise error(f"{where}:{line}: an anchor contains itself")
    if len(above) > DEEPEST:
        raise error(f"{where}:{line}: {_DEEP}")
    if isinstance(node, yaml.ScalarNode):
        digits = node.value.strip("+-").replace("_", "")
        if node.tag.endswith(":int") and len(digits) > LONGEST_NUMBER:
            raise error(f"{where}:{line}: {_long(digits)}")
        return 1
    pairs = isinstance(node, yaml.MappingNode)
    parts = [part for pair in node.value for part in pair] if pairs else node.value
    below = (*above, id(node))
    known[id(node)] = 1 + sum(_size(part, known, below, where, error) for part in parts)
    return known[id(node)]


def _index(node: yaml.Node, prefix: str, lines: dict[str, int], where: str, error: type[UserError]) -> None:
    """Fill `lines`, refusing keys given twice (YAML would silently keep the last)."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in seen and name != "<<":
                first = f"first on line {seen[name]}"
                raise error(f"{where}:{line}: {spoken(prefix + name)}: this key is given twice, {first}")
            seen[name] = line
            lines[prefix + name] = line
            _index(value, f"{prefix}{name}.", lines, where, error)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            lines[f"{prefix}{position}"] = value.start_mark.line + 1
            _index(value, f"{prefix}{position}.", lines, where, error)


def spoken(key: str) -> str:
    """`faults.0.kind` as people write it: `faults[0].kind`."""
    head, *rest = key.split(".")
    return head + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in rest)


def _said(path: str | Path, text: str, wrong: yaml.YAMLError) -> str:
    """What YAML found, with what people most often did."""
    mark = getattr(wrong, "problem_mark", None) or getattr(wrong, "context_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    problem = getattr(wrong, "problem", None) or str(wrong)
    if "nesting depth" in problem:
        return f"{path}{line}: {_DEEP}"
    written = (text.splitlines()[mark.line : mark.line + 1] or [""])[0] if mark else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return f"{path}{line}: this line is indented with a tab; YAML wants spaces"
    if problem.startswith(("mapping values are not allowed", "did not find expected key", "did not find expected '-'")):
        hint = "is its indentation that of its neighbours, and is a text with a colon in it quoted?"
        return f"{path}{line}: this is not YAML: {problem}; {hint}"
    return f"{path}{line}: this is not YAML: {' '.join(problem.split())}"


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and mappings go deeper than so many levels."""
    layer = [value]
    for _ in range(levels + 1):
        inner = [each for each in layer if isinstance(each, dict | list)]
        if not inner:
            return False
        layer = [part for each in inner for part in (each.values() if isinstance(each, dict) else each)]
    return True


@lru_cache(maxsize=1)
def _loader() -> type:
    """YAML 1.2 scalars on PyYAML."""

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
    Loader.add_constructor(f"{tag}int", _whole)
    Loader.add_constructor(f"{tag}float", _fraction)
    return Loader


def _whole(loader: Any, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if not re.fullmatch(r"[-+]?[\d_]+", text, re.ASCII):  # only where a tag such as !!int asks for it
        raise yaml.constructor.ConstructorError(None, None, f"{text!r} is not a whole number", node.start_mark)
    return int(text.replace("_", ""))


def _fraction(loader: Any, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    try:
        return float(re.sub(r"\.(inf|nan)$", r"\1", text))
    except ValueError:
        raise yaml.constructor.ConstructorError(None, None, f"{text!r} is not a number", node.start_mark) from None
