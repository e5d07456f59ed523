"""Which GPU a PCI device is, by the ids that it has in a topology dump. Data and source: `pci_ids.yaml`."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class PciDevice:
    """The name that pci.ids gives it, and its name in the catalogue of GPUs (None: it has no entry there)."""

    name: str
    gpu: str | None


@lru_cache(maxsize=1)
def _table() -> dict[int, dict[int, dict]]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(files("llmsim.catalogue").joinpath("pci_ids.yaml").read_text("utf-8"), loader)


def pci_device(vendor: int, device: int) -> PciDevice | None:
    """None for a device that is no GPU for training, or too new."""
    found = _table().get(vendor, {}).get(device)
    return PciDevice(found["name"], found["gpu"]) if found else None


def pci_names() -> list[PciDevice]:
    """All of them."""
    return [PciDevice(entry["name"], entry["gpu"]) for devices in _table().values() for entry in devices.values()]
