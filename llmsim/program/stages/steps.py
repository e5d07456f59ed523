"""The steps and the parameters of each part of a virtual stage on one rank."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from llmsim.catalogue.gpus import Gpu
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
from llmsim.program.stages.parts import StagePart, stage_parts
from llmsim.program.stages.pass_steps import StageSteps
from llmsim.program.stages.shares import Shares
from llmsim.program.stages.stage import StageProgram
from llmsim.scenario import Scenario
from llmsim.scenario.sections import Recompute

_MAKE = {"embedding": embedding_steps, "head": head_steps, "projector": projector_steps, "mtp": mtp_steps}


def stage_programs(scenario: Scenario, shard: Shard, stages: int, apart: bool) -> tuple[StageProgram, ...]:
    """Steps and parameters of each of `stages` virtual stages; apart: as `stage_parts` takes it."""
    resolved, training = scenario.resolve(), scenario.training
    contents = _Contents(resolved.architecture, shard, training.offload.activations != "none")
    given = scenario.parallelism.stage_layers
    return _stage_programs(contents, resolved.topology.gpu, training.recompute, stages, apart, given)


@dataclass(frozen=True)
class _Contents:
    """Steps and parameters of parts of a model on one rank; moved: whether activations leave the GPU."""

    architecture: Architecture
    rank: Shard
    moved: bool

    def program(self, parts: tuple[StagePart, ...], known: dict[StagePart, "_Part"]) -> StageProgram:
        """known: the parts that there were already."""
        found = []
        for part in parts:
            alike = part.alike
            if alike not in known:
                known[alike] = _Part(_part_steps(alike, self.architecture, self.rank), *self._held(alike))
            found.append(known[alike])
        steps = StageSteps(tuple((part.layer, each.steps) for part, each in zip(parts, found)))
        return StageProgram(parts, steps, tuple(each.shares for each in found), tuple(each.kept for each in found))

    def _held(self, part: StagePart) -> tuple[Shares, float]:
        """Parameters, and bytes that are kept from the forward to the backward (counted only where they are moved)."""
        whole = self.architecture
        shares = Shares(0.0, 0.0) if part.shared and part.stack == "mtp" else self._shares(part, whole)
        if part.role != "layer" or not self.moved:
            return shares, 0.0
        kept = layer_activation_bytes(part.architecture(whole), part.shard(whole, self.rank), part.kind)
        return shares, sum(kept.values())

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


@dataclass(frozen=True, slots=True)
class _Part:
    steps: LayerSteps
    shares: Shares
    kept: float


@lru_cache(maxsize=256)  # most scenarios of a sweep or a search share their stages, or at least their parts
def _stage_programs(
    contents: _Contents, gpu: Gpu, recompute: Recompute, stages: int, apart: bool, given: tuple[int, ...] | str | None
) -> tuple[StageProgram, ...]:
    if isinstance(given, str):
        given = _balanced(contents, gpu, recompute, stages)
    known: dict[StagePart, _Part] = {}
    parts = stage_parts(contents.architecture, recompute, stages, apart, given)
    return tuple(contents.program(each, known) for each in parts)


def _balanced(contents: _Contents, gpu: Gpu, recompute: Recompute, stages: int) -> tuple[int, ...]:
    """Layers of each virtual stage by the time of their kernels, those of what is in front and behind counted.

    Where some layers of each stage are recomputed, all count as such: which ones they are, the cut itself decides.
    """

    def seconds(parts: Sequence[StagePart]) -> tuple[float, ...]:
        return tuple(_kernel_seconds(part.alike, contents.architecture, contents.rank, gpu) for part in parts)

    (parts,) = stage_parts(contents.architecture, recompute, 1, apart=False)
    parts = tuple(replace(part, recompute=recompute.mode) if part.role == "layer" else part for part in parts)
    own = [index for index, part in enumerate(parts) if part.role == "layer" and part.stack == "decoder"]
    first, behind = own[0], own[-1] + 1
    ends = (sum(seconds(parts[:first])), sum(seconds(parts[behind:])))
    return balance_layers(seconds(parts[first:behind]), stages, *ends)


@lru_cache(maxsize=1024)
def _kernel_seconds(part: StagePart, whole: Architecture, rank: Shard, gpu: Gpu) -> float:
    """Of a part's forward and backward, by the catalogue's constants."""
    kernels, steps = _catalogued(gpu), _part_steps(part, whole, rank)
    works = (step.work for step in (*steps.forward, *steps.backward) if not isinstance(step.work, Communication))
    times = [kernels.time(work) for work in works]
    return sum(time.seconds + time.launch for time in times)


@lru_cache(maxsize=16)
def _catalogued(gpu: Gpu) -> KernelCosts:
    return KernelCosts(gpu, KernelTraits(sustained=True))


@lru_cache(maxsize=1024)
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
