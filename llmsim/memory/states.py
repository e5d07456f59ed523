"""Model states: the bytes of weights, gradients and optimizer state that one rank holds from start to end.

ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 3.1 and figure 1): with Ψ parameters on N ranks, 16-bit
weights and gradients and Adam, 16Ψ without sharding, 4Ψ + 12Ψ/N (stage 1), 2Ψ + 14Ψ/N (stage 2), 16Ψ/N (stage 3).
"""

from dataclasses import dataclass

from llmsim.catalogue.memory_constants import memory_constants
from llmsim.program.stages.shares import Shares


@dataclass(frozen=True, slots=True)
class States:
    """Bytes of one rank."""

    parameters: float
    gradients: float
    optimizer: float

    def __add__(self, other: "States") -> "States":
        return States(
            self.parameters + other.parameters,
            self.gradients + other.gradients,
            self.optimizer + other.optimizer,
        )

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.optimizer


@dataclass(frozen=True, slots=True)
class Keeping:
    """How states are kept: bytes a parameter, and over how many ranks which of them are sharded.

    weight: of the copy that computes. gradient: of the buffer that gradients add up in. zero: 0-3. ranks and
    expert_ranks share the dense parameters and the experts. copies: extra low-precision copies (fp8), bytes.
    gathered: of sharded parameters that stay whole through the iteration. outside: what is offloaded; sharded gradients
    go to the optimizer as they come (ZeRO-Offload, arXiv 2101.06840), which reads them in `copied` bytes.
    """

    weight: float
    gradient: float
    optimizer: str
    zero: int = 0
    ranks: int = 1
    expert_ranks: int = 1
    copies: float = 0.0
    gathered: float = 0.0
    copied: float = 0.0
    optimizer_outside: bool = False
    parameters_outside: bool = False

    @property
    def master(self) -> float:
        """Bytes a parameter of the fp32 copy that the optimizer updates; none where the weights are fp32 already."""
        return memory_constants().master if self.weight < 4 else 0.0

    @property
    def state(self) -> float:
        return memory_constants().state[self.optimizer]

    def of(self, shares: Shares) -> States:
        """States of the parameters that one rank computes with (`shares`, before sharding over data ranks).

        Fully sharded (stage 3), the shard of the weights is the fp32 master itself and gradients take its type, as in
        FSDP: 4 + 4 + 8 bytes with Adam, the same 16 that ZeRO's 2 + 2 + 12 come to.
        """
        sharded, whole = self._sharded(shares), shares.total
        if self.zero >= 3 and self.optimizer_outside:
            own = 0.0 if self.parameters_outside else sharded * self.weight
            return States(own + whole * self.gathered, 0.0, 0.0)
        if self.zero >= 3:
            full = self.weight + self.master if self.weight >= 4 else self.master
            return States(sharded * full + whole * self.gathered, sharded * full, sharded * self.state)
        return States(
            whole * (self.weight + self.copies),
            (sharded * (not self.optimizer_outside) if self.zero >= 2 else whole) * self.gradient,
            (sharded if self.zero >= 1 else whole) * (self.master + self.state) * (not self.optimizer_outside),
        )

    def outside(self, shares: Shares) -> States:
        """What the same rank keeps in CPU memory or on disks: 2Ψ + 12Ψ of fp16 training (ZeRO-Offload, section 3)."""
        if not self.optimizer_outside:
            return States(0.0, 0.0, 0.0)
        own = self._sharded(shares) if self.zero else shares.total
        # A CPU updates fp32 parameters of its own; parameters that live outside are those, where they are fp32.
        apart = self.parameters_outside and self.weight < 4
        return States(own * self.weight * apart, own * self.copied, own * (memory_constants().master + self.state))

    def _sharded(self, shares: Shares) -> float:
        return shares.dense / self.ranks + shares.expert / self.expert_ranks
