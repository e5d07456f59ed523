"""Constants of collectives: `collectives.yaml`, read once."""

from functools import cache
from importlib import resources
from typing import Any


@cache
def collective_constants() -> dict[str, Any]:
    """Sections `nccl` (what NCCL's tuner believes), `achieved` (what happens), `stands_for`; units in the file."""
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("collectives.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text, Loader=loader)


def generation(architecture: str) -> str:
    """The GPU generation whose constants an architecture uses: its own, or the one that stands for it."""
    return collective_constants()["stands_for"].get(architecture, architecture)
