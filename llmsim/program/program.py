"""What the engine plays for one scenario, with what is needed to read the outcome: a plan, classes, stages, labels."""

from dataclasses import dataclass

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.traffic import Traffic
from llmsim.engine.plan import Plan
from llmsim.parallel.schedules.order import Schedule
from llmsim.program.folding.classes import RankClasses
from llmsim.program.passes.labels import Label, Tag
from llmsim.program.passes.op_costs import ClassGroup
from llmsim.program.stages.stage import StageProgram


@dataclass(frozen=True)
class Program:
    """What is played, and what its numbers mean. `stage_of[class]` is a pipeline rank."""

    plan: Plan
    labels: list[Label]
    tags: list[Tag]
    classes: RankClasses
    stage_of: np.ndarray
    schedule: Schedule
    cluster: Cluster
    groups: list[dict[str, ClassGroup]]
    stages: tuple[StageProgram, ...]
    traffic: dict[str, Traffic]
    gpu_of_rank: np.ndarray
    blocking: bool  # computation waits for its own sends to other stages
