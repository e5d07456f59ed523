"""The steps and the parameters of each part of a virtual stage on one rank."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from llmsim.cost.kernels import KernelCosts, KernelTraits
from llmsim.model.activations import layer_activation_bytes
from llmsim.model.architecture import Architecture
from llmsim.model.layer import embedding_steps, head_steps, layer_steps, mtp_steps
from llmsim.model.operators import LayerSteps
from llmsim.model.parameters import (
    EdgeParameters,
    embedding_parameters,
    head_parameters,
    layer_parameters,
    mtp_parameters,
    projector_parameters,
)
from llmsim.model.projector import projector_steps
from llmsim.model.shard import Shard
from llmsim.model.work import Communication, Step
from llmsim.parallel.stages import balance_layers
from llmsim.program.gradients import Shares
from llmsim.program.parts import StagePart, stage_parts
from llmsim.program.passes import StageSteps
from llmsim.program.stage import StageProgram
from llmsim.scenario import Scenario

_MAKE = {"embedding": embedding_steps, "head": head_steps, "projector": projector_steps, "mtp": mtp_steps}


def stage_programs(scenario: Scenario, shard: Shard, stages: int, apart: bool) -> tuple[StageProgram, ...]:
    """Steps and parameters of each of `stages` virtual stages; apart: as `stage_parts` takes it."""
    contents = _Contents(scenario, shard)
    given = scenario.parallelism.stage_layers
    if given == "balanced":
        given = _balanced(scenario, contents, stages)
    return tuple(contents.program(parts) for parts in stage_parts(scenario, stages, apart, given))


def _balanced(scenario: Scenario, contents: "_Contents", stages: int) -> tuple[int, ...]:
    """Layers of each virtual stage by the time of their kernels, those of what is in front and behind counted.

    Where some layers of each stage are recomputed, all count as such: which ones they are, the cut itself decides.
    """
    resolved, mode = scenario.resolve(), scenario.training.recompute.mode
    kernels = KernelCosts(resolved.topology.gpu, KernelTraits(sustained=True))

    def seconds(parts: Sequence[StagePart]) -> list[float]:
        return [
            sum(
                time.seconds + time.launch
                for step in (*steps.forward, *steps.backward)
                if not isinstance(step.work, Communication)
                for time in (kernels.time(step.work),)
            )
            for steps in (contents.steps(part) for part in parts)
        ]

    (parts,) = stage_parts(scenario, 1, apart=False)
    parts = [replace(part, recompute=mode) if part.role == "layer" else part for part in parts]
    own = [index for index, part in enumerate(parts) if part.role == "layer" and part.stack == "decoder"]
    first, behind = own[0], own[-1] + 1
    ends = (sum(seconds(parts[:first])), sum(seconds(parts[behind:])))
    return balance_layers(seconds(parts[first:behind]), stages, *ends)


@dataclass(frozen=True)
class _Contents:
    """Steps and parameters, made once for parts that are alike."""

    scenario: Scenario
    rank: Shard
    known: dict[StagePart, tuple[LayerSteps, Shares]] = field(default_factory=dict)

    def program(self, parts: tuple[StagePart, ...]) -> StageProgram:
        steps = StageSteps(tuple((part.layer, self.steps(part)) for part in parts))
        shares = tuple(self._of(part)[1] for part in parts)
        return StageProgram(parts, steps, shares, tuple(self._kept(part) for part in parts))

    def steps(self, part: StagePart) -> LayerSteps:
        return self._of(part)[0]

    def _of(self, part: StagePart) -> tuple[LayerSteps, Shares]:
        alike = part.alike
        if alike not in self.known:
            whole = self.scenario.resolve().architecture
            shares = Shares(0.0, 0.0) if part.shared and part.stack == "mtp" else self._shares(part, whole)
            self.known[alike] = _part_steps(alike, whole, self.rank), shares
        return self.known[alike]

    def _shares(self, part: StagePart, whole: Architecture) -> Shares:
        """Parameters that one rank holds."""
        arch, shard = part.architecture(whole), part.shard(whole, self.rank)
        if part.role == "layer":
            split = (shard.tp, shard.ep, shard.expert_split, arch.kv_heads)
            return Shares(*layer_parameters(arch, part.kind).on_rank(*split))
        if part.role == "embedding":
            edge = embedding_parameters(arch, shard.seq_len)
            if part.stack == "mtp":  # it has no positions of its own
                edge = EdgeParameters(edge.sharded, 0)
        elif part.role == "head":
            edge = head_parameters(arch, copy_tied=not part.shared)
        elif part.role == "mtp":
            edge = mtp_parameters(arch)
        else:
            edge, norm = projector_parameters(whole), head_parameters(whole.encoder)  # without a vocabulary
            edge = EdgeParameters(edge.sharded, edge.replicated + norm.total)
        return Shares(edge.sharded / shard.tp + edge.replicated, 0.0)

    def _kept(self, part: StagePart) -> float:
        """Bytes that a layer keeps from its forward to its backward; counted only where they are moved."""
        if part.role != "layer" or self.scenario.training.offload.activations == "none":
            return 0.0
        whole = self.scenario.resolve().architecture
        shard = part.shard(whole, self.rank)
        return sum(layer_activation_bytes(part.architecture(whole), shard, part.kind).values())


@lru_cache(maxsize=1024)  # most scenarios of a sweep or a search share most of their parts
def _part_steps(part: StagePart, whole: Architecture, rank: Shard) -> LayerSteps:
    arch, shard = part.architecture(whole), part.shard(whole, rank)
    layer = part.role == "layer"
    steps = layer_steps(arch, shard, part.kind, part.window) if layer else _MAKE[part.role](arch, shard)
    return steps if part.stack == "decoder" else _of_stack(steps, part.stack)


def _of_stack(steps: LayerSteps, stack: str) -> LayerSteps:
    """Steps whose names say whose they are."""

    def named(part: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(replace(step, name=f"{stack} {step.name}") for step in part)

    return LayerSteps(*map(named, (steps.forward, steps.backward, steps.backward_input, steps.backward_weight)))
