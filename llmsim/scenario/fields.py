"""The kinds of value a scenario may hold. Each refuses with the rest of a sentence: the value, and what is accepted."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from llmsim.cluster.topology import MOST_GPUS
from llmsim.errors import UnitError, nearest
from llmsim.scenario.outside import outside
from llmsim.units import UNITS, Dimension, parse_count, parse_quantity


def refuse(text: str) -> PydanticCustomError:
    """What a validator raises: `text` follows the key in the message, and may hold braces."""
    return PydanticCustomError("refused", "{text}", {"text": text})


def show(value: object) -> str:
    """A value as an error message prints it: as in YAML, cut to a readable length."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; a list within itself
        return f"this {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def whole(low: int, high: int) -> Any:
    """A whole number from `low` to `high`; 1e3, numpy integers, 4k and 4Ki are accepted, true and '8' are not."""
    accepted = f"a whole number of at least {low}"

    def read(value: object) -> int:
        try:
            number = parse_count(value)
        except UnitError:
            raise refuse(f"{show(value)} is not a whole number; expected {accepted}") from None
        if number < low:
            raise refuse(f"{show(number)} is too small; expected {accepted}")
        if number > high:
            raise refuse(f"{show(number)} is too large; expected at most {high:,}")
        return number

    return Annotated[int, BeforeValidator(read)]


def quantity(dimension: Dimension, low: float, high: float, open_end: bool = True) -> Any:
    """A number in SI units or a string with a unit, from `low` to `high`. `open_end`: `low` itself is refused."""
    unit = UNITS[dimension]
    accepted = f"{'more than' if open_end else 'at least'} {low:g} and at most {high:g}{unit}"

    def read(value: object) -> float:
        if hasattr(value, "item") and not isinstance(value, str):
            value = value.item()  # a numpy scalar
        try:
            number = parse_quantity(value, dimension)
        except UnitError as error:
            raise refuse(str(error)) from None
        if number < low or (open_end and number == low) or number > high:
            raise refuse(f"{show(value)} is out of range; expected {accepted}")
        return number

    return Annotated[float, BeforeValidator(read)]


def choice(*names: str, aliases: dict[object, str] | None = None) -> Any:
    """One of the names; `aliases` are other spellings, such as the False that YAML 1.1 makes of `off`."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in names:
            return value
        if aliases and isinstance(value, str | int | None) and value in aliases:
            return aliases[value]
        if told := outside(value):
            raise refuse(f"{show(value)}: {told}; expected one of {', '.join(names)}")
        hint = nearest(value, names) if isinstance(value, str) else ""
        raise refuse(f"{show(value)} is not known; expected one of {', '.join(names)}{hint}")

    return Annotated[str, BeforeValidator(read)]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise refuse(f"{show(value)} is not a text; expected a non-empty string")
    return value


def _flag(value: object) -> bool:
    spellings = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.lower() in spellings:
        return spellings[value.lower()]
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return bool(value)
    raise refuse(f"{show(value)} is neither true nor false; expected true or false")


Text = Annotated[str, BeforeValidator(_text)]
Flag = Annotated[bool, BeforeValidator(_flag)]
# Ranges that several keys share. Their ends are far beyond what exists, and near enough to catch a slip of the pen.
Degree = whole(1, MOST_GPUS)  # ranks of one kind of parallelism
Tokens = quantity("number", 0.0, 1e18)  # of a training or a corpus; the largest are 1e14
Seconds = quantity("time", 0.0, 1e9, open_end=False)  # to 30 years
Duration = quantity("time", 0.0, 3600.0, open_end=False)  # of one kernel, read or hop


def empty_when_null(convert: Callable[[object], object] = lambda value: value) -> BeforeValidator:
    """A section left empty in YAML is null: it means its defaults."""
    return BeforeValidator(lambda value: {} if value is None else convert(value))
