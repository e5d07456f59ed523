"""What collectives cost: pure functions from (algorithm, group, size) to phases, with NCCL's choice of algorithm."""

from llmsim.collectives.group import Group
from llmsim.collectives.phase import CollectivePlan, Phase, bus_factor
from llmsim.collectives.plan import OPERATIONS, plan_collective

__all__ = ["OPERATIONS", "CollectivePlan", "Group", "Phase", "bus_factor", "plan_collective"]
