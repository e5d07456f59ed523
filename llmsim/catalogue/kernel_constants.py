"""Constants of compute kernels: `kernels.yaml`, read once."""

from functools import cache
from importlib import resources
from typing import Any

from llmsim.errors import CatalogueError, nearest


@cache
def _table() -> dict[str, Any]:
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("kernels.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def kernel_constants(architecture: str) -> dict[str, Any]:
    """The constants of one GPU architecture, units in the file. Raises `CatalogueError` when it has none."""
    table = _table()
    if architecture not in table:
        hint = nearest(architecture, table) or f"; known: {', '.join(table)}"
        raise CatalogueError(f"no kernel constants for the architecture {architecture!r}{hint}")
    return table[architecture]
