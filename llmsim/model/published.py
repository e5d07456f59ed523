"""Models by name: shape, published training tokens and dataset. Data and sources: `models/*.yaml`, one file a family.

A family file holds `source`, `defaults` that all its models share, and `models`; an entry overrides the defaults and
merges its `architecture` into theirs. To add a model, add an entry; nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from llmsim.catalogue.datasets import dataset as find_dataset
from llmsim.errors import CatalogueError, nearest
from llmsim.model.architecture import Architecture
from llmsim.model.mapping import architecture_from_mapping
from llmsim.units import parse_quantity


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A published model. None where its authors have not said."""

    name: str
    architecture: Architecture
    family: str
    year: int
    training_tokens: float | None  # tokens seen in pre-training
    dataset: str | None  # a name of `llmsim.catalogue.datasets`
    dataset_bytes: float | None  # size of the text it was trained on
    published_parameters: float | None  # to the unit where the weights are public, else as rounded in the paper
    source: str


@lru_cache(maxsize=1)
def _stems() -> tuple[str, ...]:
    """Names of the family files, without suffix."""
    folder = files("llmsim.catalogue").joinpath("models")
    return tuple(sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml")))


@lru_cache(maxsize=64)
def _family(stem: str) -> dict[str, dict[str, Any]]:
    """The merged entries of one family file by name; `aliases` stay inside the entry."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = files("llmsim.catalogue").joinpath("models", f"{stem}.yaml").read_text("utf-8")
    page = yaml.load(text, loader)
    shared = {"family": page["family"], "source": page["source"], **page.get("defaults", {})}
    return {name: _merged(shared, entry) for name, entry in page["models"].items()}


def _merged(shared: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    shape = {**shared.get("architecture", {}), **entry.get("architecture", {})}
    return {**shared, **entry, "architecture": shape}


def _names(stem: str) -> dict[str, str]:
    """Every accepted name of a family (aliases included) to the entry's own name."""
    entries = _family(stem)
    return {alias: name for name, entry in entries.items() for alias in (name, *entry.get("aliases", ()))}


def models() -> list[str]:
    """All catalogue names, family by family, in the order of the files; aliases not included."""
    return [name for stem in _stems() for name in _family(stem)]


@lru_cache(maxsize=256)
def model(name: str) -> ModelEntry:
    """The model of this name or alias, upper or lower case, `_` for `-` allowed.

    Raises `CatalogueError` with the nearest known name.
    """
    wanted = str(name).strip().lower().replace("_", "-")
    # Most names begin with their file's name: then one small file is read, not all of them.
    for stem in sorted(_stems(), key=lambda stem: not wanted.startswith(stem)):
        key = _names(stem).get(wanted)
        if key is not None:
            return _entry(key, _family(stem)[key])
    known = [accepted for stem in _stems() for accepted in _names(stem)]
    hint = nearest(wanted, known) or "; `llmsim models` lists them"
    raise CatalogueError(f"no model named {name!r} in the catalogue{hint}")


def _entry(name: str, raw: Mapping[str, Any]) -> ModelEntry:
    corpus = find_dataset(raw["dataset"]) if raw.get("dataset") else None
    return ModelEntry(
        name=name,
        architecture=architecture_from_mapping(raw["architecture"], name),
        family=raw["family"],
        year=raw["year"],
        training_tokens=_number(raw.get("training_tokens")),
        dataset=corpus.name if corpus else None,
        dataset_bytes=corpus.bytes if corpus else None,
        published_parameters=_number(raw.get("published_parameters")),
        source=raw["source"],
    )


def _number(value: object) -> float | None:
    return None if value is None else parse_quantity(value, "number")
