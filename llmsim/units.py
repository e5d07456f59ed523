"""Quantities with units, parsed and printed at the edge. Inside llmsim everything is SI: seconds, bytes, FLOP, bytes/s.

`b` is a bit and `B` a byte; decimal prefixes (k, M, G, T, P) are powers of 1000, binary ones (Ki, Mi, Gi, Ti) of 1024.
"""

import math
import operator
import re
from typing import Literal

from llmsim.errors import UnitError

Dimension = Literal["bytes", "bandwidth", "time", "flops", "power", "number"]

_PREFIX = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_TIME = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_EXAMPLE = {
    "bytes": "'80 GiB'",
    "bandwidth": "'400 Gbps' or '50 GB/s'",
    "time": "'3 us'",
    "flops": "'312 TFLOPS'",
    "power": "'700 W'",
    "number": "300e9",
}
UNITS = {"bytes": " bytes", "bandwidth": " bytes/s", "time": " s", "flops": " FLOP/s", "power": " W", "number": ""}
_QUANTITY = re.compile(r"^\s*([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zµμ/]*)\s*$")


def parse_quantity(value: object, dimension: Dimension) -> float:
    """The SI value of a number (taken as SI) or of a string such as `400 Gbps`, `80 GiB`, `3 us`, `312 TFLOPS`.

    Raises `UnitError` with what would be accepted; NaN and infinities are refused.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UnitError(f"{value!r} is not a quantity; expected a number or a string such as {_EXAMPLE[dimension]}")
    if isinstance(value, int | float):
        try:
            number, unit = float(value), ""
        except OverflowError:
            raise UnitError("a whole number of more than 300 digits is out of range") from None
    else:
        match = _QUANTITY.match(value)
        if not match:
            raise UnitError(f"{value!r} cannot be read as {_noun(dimension)}; write it like {_EXAMPLE[dimension]}")
        number, unit = float(match[1].replace("_", "")), match[2]
    scale = 1.0 if not unit else _scale(unit, dimension)
    if scale is None:
        raise UnitError(f"{value!r} has no unit of {_noun(dimension)}; write it like {_EXAMPLE[dimension]}")
    result = number * scale
    if not math.isfinite(result):
        raise UnitError(f"{value!r} is not finite")
    return result


def parse_count(value: object) -> int:
    """A whole number, or a text such as `4k` (4000), `4Ki` (4096) or `1.5M`. Raises `UnitError` for anything else.

    1e3 and integers of numpy are whole numbers; true and '8' are not.
    """
    if isinstance(value, str) and (match := _QUANTITY.match(value)) and match[2]:
        scale = _BINARY.get(match[2]) or _PREFIX.get(match[2])
        number = float(match[1].replace("_", "")) * scale if scale else math.nan
        if math.isfinite(number) and number == round(number):
            return round(number)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UnitError("not a whole number")
    return operator.index(value)


def _noun(dimension: Dimension) -> str:
    return {"flops": "FLOP/s", "number": "a number"}.get(dimension, dimension)


def _scale(unit: str, dimension: Dimension) -> float | None:
    if dimension == "time":
        return _TIME.get(unit)
    suffixes = {
        "bytes": {"B": 1.0, "b": 0.125},
        "bandwidth": {"B/s": 1.0, "Bps": 1.0, "bps": 0.125, "b/s": 0.125, "bit/s": 0.125},
        "flops": {"FLOPS": 1.0, "FLOP/s": 1.0, "FLOPs": 1.0, "flops": 1.0},
        "power": {"W": 1.0},
        "number": {"": 1.0},
    }[dimension]
    for suffix, scale in suffixes.items():
        if unit.endswith(suffix):
            prefix = unit[: len(unit) - len(suffix)]
            factor = _BINARY.get(prefix, _PREFIX.get(prefix))
            if factor is not None:
                return factor * scale
    return None


def format_bytes(value: float) -> str:
    """`1.5 GiB`: three significant digits with a binary prefix."""
    for prefix in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        if abs(value) >= _BINARY[prefix]:
            return f"{value / _BINARY[prefix]:.3g} {prefix}B"
    return f"{value:.0f} B"


def format_seconds(value: float) -> str:
    """`12.3 ms`: three significant digits, from nanoseconds to days."""
    for limit, unit, scale in ((1e-6, "ns", 1e-9), (1e-3, "us", 1e-6), (1.0, "ms", 1e-3), (120.0, "s", 1.0)):
        if abs(value) < limit:
            return f"{value / scale:.3g} {unit}"
    if abs(value) < 7200:
        return f"{value / 60:.3g} min"
    return f"{value / 3600:.3g} h" if abs(value) < 172800 else f"{value / 86400:.3g} days"


def format_rate(value: float, unit: str = "B/s") -> str:
    """`450 GB/s`: three significant digits with a decimal prefix."""
    for prefix in ("E", "P", "T", "G", "M", "k"):
        if abs(value) >= _PREFIX[prefix]:
            return f"{value / _PREFIX[prefix]:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"
