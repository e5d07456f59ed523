"""What one virtual stage does: its parts with their steps and parameters."""

from collections import Counter
from dataclasses import dataclass

from llmsim.model.work import Gemm
from llmsim.program.stages.parts import StagePart
from llmsim.program.stages.pass_steps import StageSteps
from llmsim.program.stages.shares import Shares


@dataclass(frozen=True, slots=True)
class StageProgram:
    """One virtual stage: its parts in forward order, and of each (as `steps.parts`) the steps, the parameters and the
    bytes that its forward keeps for its backward."""

    parts: tuple[StagePart, ...]
    steps: StageSteps
    parameters: tuple[Shares, ...]
    kept: tuple[float, ...]

    @property
    def moved(self) -> tuple[bool, ...]:
        """Which parts' activations leave the GPU: all that are known to be kept, but the last layer's."""
        layers = [index for index, part in enumerate(self.parts) if part.role == "layer"]
        return tuple(index in layers[:-1] and self.kept[index] > 0 for index in range(len(self.kept)))

    @property
    def matrices(self) -> Counter[tuple[int, int, bool]]:
        """How many weights of (rows, columns, whether of an expert) the layers have, as their gradients say."""
        found: Counter[tuple[int, int, bool]] = Counter()
        for layer, steps in self.steps.parts:
            for step in steps.backward if layer >= 0 else ():
                if isinstance(step.work, Gemm) and step.name.endswith("_wgrad"):
                    found[step.work.m, step.work.n, step.work.grouped] += step.work.batch
        return found

    @property
    def total(self) -> Shares:
        return sum(self.parameters, Shares(0.0, 0.0))
