"""Pipeline schedules: pure functions from stages, micro-batches and chunks to each rank's order of ops."""

from llmsim.parallel.schedules.evaluate import Timeline, evaluate
from llmsim.parallel.schedules.order import Schedule
from llmsim.parallel.schedules.registry import (
    check_schedule,
    default_chunks,
    needs_times,
    schedule,
    schedules,
    takes_any_chunks,
)

__all__ = [
    "Schedule",
    "Timeline",
    "check_schedule",
    "default_chunks",
    "evaluate",
    "needs_times",
    "schedule",
    "schedules",
    "takes_any_chunks",
]
