"""The whole job: a scenario and its failures, checkpoints and restarts go in; goodput, days and cost come out."""

from llmsim.job.goodput import Goodput, goodput
from llmsim.job.plan import Planned, plan
from llmsim.job.sizes import goodput_by_size

__all__ = ["Goodput", "Planned", "goodput", "goodput_by_size", "plan"]
