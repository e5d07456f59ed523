"""How a stage's parameters, gradients and optimizer state are split over ranks, and bytes of number formats."""

from dataclasses import dataclass

DTYPE_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class Shares:
    """Parameters that one rank reduces, by the group that reduces them: dense over `dp`, experts over `edp`."""

    dense: float
    expert: float

    def __add__(self, other: "Shares") -> "Shares":
        return Shares(self.dense + other.dense, self.expert + other.expert)

    @property
    def total(self) -> float:
        return self.dense + self.expert
