"""Compute kernels in seconds: what the work of one kernel takes of one GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from llmsim.catalogue.gpus import Gpu
from llmsim.catalogue.kernel_constants import KernelConstants, kernel_constants
from llmsim.cost.attention import attention_time
from llmsim.cost.gemm import gemm_time
from llmsim.cost.kernel_time import KernelTime
from llmsim.cost.memory_bound import memory_bound_time
from llmsim.model.work import Attention, Gemm, HostWait, MemoryBound

__all__ = ["KernelCosts", "KernelTime", "KernelTraits"]

Work = Gemm | Attention | MemoryBound | HostWait


@dataclass(frozen=True, slots=True)
class KernelTraits:
    """What differs from the catalogue on a user's cluster or in a framework; the default changes nothing."""

    launch: float | None = None  # s between kernels; None = the architecture's
    math: float = 1.0  # times the catalogue's achieved math rates
    memory: float = 1.0  # times the catalogue's achieved HBM bandwidth
    attention: str | None = None  # kernel family for all attention; None = flash of the work's version
    precision: str = "bf16"  # of the training: whose peak its products are held against
    sustained: bool = False  # math rates as a training job sustains them, not as single kernels show


class KernelCosts:
    """Kernel times on one GPU; each distinct work is computed once."""

    def __init__(self, gpu: Gpu, traits: KernelTraits | None = None, constants: KernelConstants | None = None) -> None:
        self.gpu = gpu
        self.traits = traits or KernelTraits()
        self.constants = _with_traits(constants or kernel_constants(gpu.kernels), self.traits)
        self._known: dict[Work, KernelTime] = {}

    def time(self, work: Work) -> KernelTime:
        """The time of one work. Raises `CatalogueError` for a precision that this GPU does not have."""
        known = self._known.get(work)
        if known is None:
            known = self._known[work] = self._compute(work)
        return known

    def at_peak(self, work: Work) -> float:
        """Seconds that its FLOPs take at the dense peak of the training's precision, or of its own if higher."""
        flops = self.time(work).flops
        if not flops:
            return 0.0
        own, training = getattr(work, "precision", "fp32"), self.traits.precision
        return flops / max(self.gpu.peak_flops.get(name, 0.0) for name in (own, training, "fp32"))

    def _compute(self, work: Work) -> KernelTime:
        if isinstance(work, Gemm):
            return gemm_time(work, self.gpu, self.constants)
        if isinstance(work, Attention):
            return attention_time(work, self.gpu, self.constants, self.traits.attention)
        if isinstance(work, HostWait):  # a gap before kernels, gone where launches are said to take no time
            return KernelTime(0.0, 0.0 if self.traits.launch == 0.0 else work.seconds, 0.0, 0.0, 0.0, 0.0)
        return memory_bound_time(work, self.gpu, self.constants)


def _with_traits(constants: KernelConstants, traits: KernelTraits) -> KernelConstants:
    """The constants with a user's traits applied."""
    if traits.math == 1.0 and traits.memory == 1.0 and traits.launch is None and not traits.sustained:
        return constants
    gemm, attention, memory = constants.gemm, constants.attention, constants.memory
    training = constants.training if traits.sustained else {"other": 1.0, "attention": 1.0}

    def scaled(rates: Mapping[str, float]) -> dict[str, float]:
        return {k: v * traits.math * training.get(k, training["other"]) for k, v in rates.items()}

    core = traits.math * training["attention"]
    return replace(
        constants,
        launch=constants.launch if traits.launch is None else traits.launch,
        gemm=replace(gemm, issue=scaled(gemm.issue), power=scaled(gemm.power)),
        attention=replace(
            attention,
            families={
                name: replace(kernel, math=kernel.math * core, softmax=kernel.softmax / core)
                for name, kernel in attention.families.items()
            },
        ),
        memory=replace(memory, hbm=memory.hbm * traits.memory, elementwise=memory.elementwise * traits.memory),
    )


def scaled(constants: KernelConstants, factors: dict[str, float], precision: str | None = None) -> KernelConstants:
    """The constants with some multiplied; `precision` limits the math rates to one (None = all)."""
    issue, power = factors.get("issue", 1.0), factors.get("power", 1.0)
    gemm = replace(
        constants.gemm,
        issue={p: v * (issue if precision in (None, p) else 1.0) for p, v in constants.gemm.issue.items()},
        power={p: v * (power if precision in (None, p) else 1.0) for p, v in constants.gemm.power.items()},
    )
    memory = replace(constants.memory, hbm=constants.memory.hbm * factors.get("hbm", 1.0))
    return replace(constants, gemm=gemm, memory=memory, launch=constants.launch * factors.get("launch", 1.0))
