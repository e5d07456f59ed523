"""A calibration file: what differs on a user's own cluster from the catalogue. Written by `llmsim calibrate`.

kernels: factors on constants of kernels.yaml, by architecture. collectives: values in place of those of
collectives.yaml, by dotted path under `achieved`. speeds: factors on everything that a simulation finds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from llmsim.catalogue.collective_constants import CATALOGUED
from llmsim.documents import read_document
from llmsim.errors import CatalogueError, nearest

KERNELS = ("issue", "power", "launch", "hbm")
SPEEDS = ("math", "hbm", "inside", "between")


@dataclass(frozen=True)
class Calibrated:
    """Factors and values by name; empty where the catalogue stands."""

    kernels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    collectives: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    speeds: Mapping[str, float] = field(default_factory=dict)


AS_CATALOGUED = Calibrated()


def read_calibration(path: str | Path) -> Calibrated:
    """The file of this path. Raises `CatalogueError` with file, key, value and what is accepted."""
    data = read_document(path, CatalogueError, "a calibration file, which `llmsim calibrate -o` writes").data
    sections = _mapping(path, "", data or {})
    for name in sections:
        if name not in ("kernels", "collectives", "speeds"):
            raise CatalogueError(f"{path}: {name}: this key is unknown; expected kernels, collectives or speeds")
    kernels = {
        architecture: _numbers(path, f"kernels.{architecture}", entry, KERNELS)
        for architecture, entry in _mapping(path, "kernels", sections.get("kernels") or {}).items()
    }
    known = [".".join(key) for key in CATALOGUED.paths()]
    values = _numbers(path, "collectives", sections.get("collectives") or {}, known)
    speeds = _numbers(path, "speeds", sections.get("speeds") or {}, SPEEDS)
    return Calibrated(kernels, {tuple(name.split(".")): value for name, value in values.items()}, speeds)


def _mapping(path: str | Path, key: str, value: object) -> Mapping:
    if not isinstance(value, Mapping):
        raise CatalogueError(f"{path}: {key or 'the file'}: {value!r} is not a mapping of constants")
    return value


def _numbers(path: str | Path, key: str, value: object, known: list[str] | tuple[str, ...]) -> dict[str, float]:
    result = {}
    for name, number in _mapping(path, key, value).items():
        if name not in known:
            hint = nearest(name, known) or (f"; expected among {', '.join(known)}" if len(known) < 9 else "")
            raise CatalogueError(f"{path}: {key}.{name}: there is no such constant{hint}")
        good = isinstance(number, int | float) and not isinstance(number, bool) and isfinite(number) and number > 0
        if not good:
            raise CatalogueError(f"{path}: {key}.{name}: {number!r} is out of range; expected a number above 0")
        result[name] = float(number)
    return result
