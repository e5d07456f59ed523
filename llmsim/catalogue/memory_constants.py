"""Constants of GPU memory: `memory.yaml`, read once. Units and sources are in the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from llmsim.units import parse_quantity


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes. `state`: by optimizer, bytes a parameter beside the master copy of `master` bytes."""

    state: Mapping[str, float]
    master: float
    context: float
    nccl: float  # buffers of one communicator
    workspaces: float
    fragmentation: float  # share of what comes and goes


@cache
def memory_constants() -> MemoryBudget:
    """The constants of `memory.yaml`."""
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("memory.yaml").read_text(encoding="utf-8")
    table = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    nccl, allocator = table["nccl"], table["allocator"]
    return MemoryBudget(
        state={name: float(entry["state"]) for name, entry in table["optimizers"].items()},
        master=float(table["master"]),
        context=parse_quantity(table["context"], "bytes"),
        nccl=parse_quantity(nccl["buffer"], "bytes") * nccl["channels"] * nccl["connections"],
        workspaces=parse_quantity(allocator["workspaces"], "bytes"),
        fragmentation=float(allocator["fragmentation"]),
    )
