"""What to do when a scenario does not fit in memory: by how much it misses, and the cheapest changes, simulated."""

from llmsim.memory.shortfall import Shortfall, shortfalls
from llmsim.studies.remedies.remedies import Remedy, remedies

__all__ = ["Remedy", "Shortfall", "remedies", "shortfalls"]
