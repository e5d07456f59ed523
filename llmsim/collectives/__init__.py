"""What collectives cost: pure functions from (algorithm, group, size) to phases, chosen as NCCL chooses."""

from llmsim.collectives.group import Group
from llmsim.collectives.phase import CollectivePlan, Phase, bus_factor
from llmsim.collectives.plan import OPERATIONS, plan_collective, plan_dispatch
from llmsim.collectives.registry import ALGORITHMS
from llmsim.collectives.simulate import size_table, sizes
from llmsim.collectives.traffic import bytes_per_link

__all__ = [
    "ALGORITHMS",
    "OPERATIONS",
    "CollectivePlan",
    "Group",
    "Phase",
    "bus_factor",
    "bytes_per_link",
    "plan_collective",
    "plan_dispatch",
    "size_table",
    "sizes",
]
