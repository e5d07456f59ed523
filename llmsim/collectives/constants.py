"""Constants of collectives by key (fabric, protocol, what): where calibration reads and puts them."""

from llmsim.catalogue.collective_constants import CATALOGUED, Key


def constant_keys() -> list[Key]:
    """Paths of the numbers under `achieved` that are not zero."""
    return [key for key in CATALOGUED.paths() if CATALOGUED.value(key)]
