"""What to do when a scenario does not fit in memory: by how much it misses, and the cheapest changes, simulated."""

from llmsim.fitting.remedies import Remedy, remedies
from llmsim.memory.shortfall import Shortfall, shortfalls

__all__ = ["Remedy", "Shortfall", "remedies", "shortfalls"]
