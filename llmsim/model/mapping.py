"""An `Architecture` out of a plain mapping, with one sentence about whatever is wrong in it."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from llmsim.errors import ModelError, UnitError, nearest
from llmsim.model.architecture import Architecture
from llmsim.model.sublayers import Indexer, LinearAttention, Mla, Moe, Projector
from llmsim.units import parse_count

_PARTS: dict[str, type] = {
    "moe": Moe,
    "mla": Mla,
    "linear": LinearAttention,
    "indexer": Indexer,
    "encoder": Architecture,
    "projector": Projector,
}
_AT_USE = ("kv_heads", "head_dim", "ffn_hidden")  # 0 stands for a default inside; a user says null


def architecture_from_mapping(mapping: Mapping[str, Any], name: str) -> Architecture:
    """The architecture that `mapping` describes, with keys as the fields of `Architecture`; null means the default.

    Raises `ModelError` naming the key, its value and what is accepted, the nearest key for one that does not exist.
    """
    try:
        return _build(Architecture, {"name": name, **_as_mapping(mapping, "model")}, "")
    except ModelError as error:
        raise ModelError(f"model {name!r}: {error}") from None


def _build(kind: type, mapping: Mapping[str, Any], prefix: str) -> Any:
    accepted = {field.name: field for field in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        if key not in accepted:
            listed = "; expected one of " + ", ".join(known for known in accepted if known != "name")
            raise ModelError(f"{prefix}{key}: no such key{nearest(key, accepted) or listed}")
        if value is None:
            continue
        if key in _PARTS:
            inner = dict(_as_mapping(value, prefix + key))
            if key == "encoder":
                inner.setdefault("name", "encoder")
                inner.setdefault("vocab", 0)
                inner.setdefault("causal", False)
            values[key] = _build(_PARTS[key], inner, f"{prefix}{key}.")
        else:
            values[key] = _scalar(f"{prefix}{key}", value, str(accepted[key].type))
    required = (field.name for field in accepted.values() if field.default is MISSING)
    missing = [prefix + key for key in required if key not in values]
    if missing:
        raise ModelError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} required but not given")
    try:
        return kind(**values)
    except ModelError as error:
        raise ModelError(f"{prefix if kind is Architecture else ''}{error}") from None


def _as_mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ModelError(f"{where}: {value!r} is not a mapping of keys such as layers, hidden and heads")
    return value


def _scalar(key: str, value: object, kind: str) -> object:
    """The value as the field's annotation wants it; whole floats such as 1.0e4 are taken for integers."""
    if "tuple" in kind:
        if not isinstance(value, list | tuple):
            raise ModelError(f"{key}: {value!r} is not a list of whole numbers")
        return tuple(_scalar(key, each, "int") for each in value)
    if "bool" in kind:
        if not isinstance(value, bool):
            raise ModelError(f"{key}: {value!r} is not true or false")
    elif "int" in kind:
        try:
            value = parse_count(value)
        except UnitError:
            raise ModelError(f"{key}: {value!r} is not a whole number") from None
        if value < 1 and key in _AT_USE:
            raise ModelError(f"{key}: {value} is too small; expected an integer of at least 1, or null for the default")
    elif "float" in kind:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{key}: {value!r} is not a number")
    elif not isinstance(value, str):
        raise ModelError(f"{key}: {value!r} is not a name")
    return value
