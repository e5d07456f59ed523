"""Constants of collectives: `collectives.yaml`, read once."""

from functools import cache
from importlib import resources
from typing import Any


@cache
def collective_constants() -> dict[str, Any]:
    """The two sections `nccl` (what NCCL's tuner believes) and `achieved` (what happens), units in the file."""
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("collectives.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text, Loader=loader)
