"""Training corpora by name: bytes of text and tokens as published. Data and sources: `datasets.yaml`."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from llmsim.errors import CatalogueError, nearest
from llmsim.units import parse_quantity


@dataclass(frozen=True, slots=True)
class Dataset:
    """A corpus. None where its authors have not said; tokens are in the tokenizer of the source."""

    name: str
    label: str
    year: int
    bytes: float | None
    tokens: float | None
    source: str

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of raw text behind one token."""
        return self.bytes / self.tokens if self.bytes and self.tokens else None


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(files("llmsim.catalogue").joinpath("datasets.yaml").read_text("utf-8"), loader)


def datasets() -> list[str]:
    """All catalogue names, oldest first."""
    return list(_table())


def dataset(name: str) -> Dataset:
    """The corpus of this name; raises `CatalogueError` with the nearest known name."""
    wanted = str(name).strip().lower().replace("_", "-")
    raw = _table().get(wanted)
    if raw is None:
        hint = nearest(wanted, _table()) or f"; known: {', '.join(_table())}"
        raise CatalogueError(f"no dataset named {name!r} in the catalogue{hint}")
    size, tokens = raw.get("bytes"), raw.get("tokens")
    return Dataset(
        name=wanted,
        label=raw["label"],
        year=raw["year"],
        bytes=None if size is None else parse_quantity(size, "bytes"),
        tokens=None if tokens is None else parse_quantity(tokens, "number"),
        source=raw["source"],
    )
