"""The steps of one pass (forward, backward, its two halves) of one virtual stage, layer after layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmsim.model.layer import LayerSteps
from llmsim.model.work import Step


@dataclass(frozen=True, slots=True)
class Pass:
    """(layer number, its steps) in program order; layer -1 is the embedding or the head.

    `closed`: no part looks into another, so that parts can be measured one by one.
    `wired`: indices of `after` count over the whole pass, not within a part.
    """

    parts: tuple[tuple[int, tuple[Step, ...]], ...]
    closed: bool = True
    wired: bool = False

    def extended(self, steps: Sequence[Sequence[Step]]) -> "Pass":
        """The pass with more steps at the end of each part that has some."""
        parts = tuple((layer, (*part, *more) if part else part) for (layer, part), more in zip(self.parts, steps))
        return replace(self, parts=parts)

    def flat(self) -> tuple[list[Step], list[int]]:
        """All steps in one list, and the layer of each; indices of `after` move along."""
        steps: list[Step] = []
        layers: list[int] = []
        for layer, part in self.parts:
            base = len(steps)
            if base and not self.wired:
                part = [s if s.after is None else replace(s, after=tuple(base + i for i in s.after)) for s in part]
            steps.extend(part)
            layers.extend([layer] * len(part))
        return steps, layers


@dataclass(frozen=True, slots=True)
class StageSteps:
    """What each part of a virtual stage does: (layer number, steps) in forward order."""

    parts: tuple[tuple[int, LayerSteps], ...]

    def forward(self) -> Pass:
        return Pass(tuple((layer, steps.forward) for layer, steps in self.parts))

    def backward(self) -> Pass:
        """Input and weight gradients together."""
        return Pass(tuple((layer, steps.backward) for layer, steps in reversed(self.parts)))

    def backward_input(self) -> Pass:
        """The half of a split backward that the previous stage waits for."""
        return Pass(tuple((layer, steps.backward_input) for layer, steps in reversed(self.parts)))

    def backward_weight(self) -> Pass:
        """The half of a split backward that nobody waits for."""
        return Pass(tuple((layer, steps.backward_weight) for layer, steps in reversed(self.parts)))
