"""Constants of collectives: `collectives.yaml`, read once and never changed; and the same with some other values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from types import MappingProxyType
from typing import Any

Key = tuple[str, ...]  # path of a number under `achieved`


@cache
def collective_constants() -> Mapping[str, Any]:
    """Sections `nccl` (what NCCL's tuner believes), `achieved` (what happens), `stands_for`; units in the file."""
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("collectives.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return _frozen(yaml.load(text, Loader=loader))


@dataclass(frozen=True)
class Achieved:
    """What collectives achieve: section `achieved`, with the numbers at some paths `changed`.

    A value like any other: two with the same changes are equal, so that whatever is remembered by one (or by a group
    that has it) is right for the other.
    """

    changed: tuple[tuple[Key, float], ...] = ()

    @staticmethod
    def of(values: Mapping[Key, float]) -> "Achieved":
        """The catalogue's with these values in place of its own."""
        return Achieved(tuple(sorted(values.items())))

    def __getitem__(self, name: str) -> Any:
        return self._table[name]

    def __reduce__(self) -> tuple:
        return Achieved, (self.changed,)  # the table itself cannot be pickled

    def value(self, key: Key) -> float:
        """The number at a path."""
        table = self._table
        for part in key:
            table = table[part]
        return table

    def paths(self) -> Iterator[Key]:
        """Paths of all numbers."""
        return _leaves(self._table)

    @cached_property
    def _table(self) -> Any:
        table = collective_constants()["achieved"]
        for key, value in self.changed:
            table = _with(table, key, value)
        return table


CATALOGUED = Achieved()


def generation(architecture: str) -> str:
    """The GPU generation whose constants an architecture uses: its own, or the one that stands for it."""
    return collective_constants()["stands_for"].get(architecture, architecture)


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(entry) for key, entry in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _with(table: Mapping[str, Any], key: Key, value: float) -> Mapping[str, Any]:
    first, *rest = key
    return MappingProxyType({**table, first: _with(table[first], tuple(rest), value) if rest else value})


def _leaves(table: Mapping[str, Any], path: Key = ()) -> Iterator[Key]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        elif isinstance(value, int | float):
            yield (*path, key)
