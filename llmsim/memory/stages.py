"""Footprints and model states of every virtual stage of a scenario."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmsim.memory.footprint import (
    Footprint,
    Gradients,
    Part,
    embedding_part,
    head_part,
    layer_part,
    mtp_part,
    projector_part,
)
from llmsim.memory.states import Keeping
from llmsim.model.shard import Shard
from llmsim.program.physics import physics_of
from llmsim.program.setup import Setup
from llmsim.program.stages.parts import StagePart
from llmsim.program.stages.shares import DTYPE_BYTES, Shares
from llmsim.program.stages.stage import StageProgram
from llmsim.scenario import Scenario

_EDGE = {"embedding": embedding_part, "head": head_part, "projector": projector_part, "mtp": mtp_part}


@dataclass(frozen=True)
class StageMemory:
    """By virtual stage: what a pass allocates; and how model states are kept."""

    footprints: tuple[Footprint, ...]
    keeping: Keeping
    whole_gradients: float  # bytes a parameter while unsharded gradients add up over micro-batches (no_sync)
    update: float  # bytes a parameter held, while the optimizer works


def stage_memory(scenario: Scenario, stages: Sequence[StageProgram]) -> StageMemory:
    """What a rank of each virtual stage holds, and how much of it when."""
    setup = Setup(scenario, physics_of(scenario))
    options, shard, training = setup.options, setup.shard, scenario.training
    layout, architecture = setup.resolved.layout, setup.resolved.architecture
    sharding = options.sharding
    gradient = max(DTYPE_BYTES[training.grad_dtype], 4 if options.param_bytes == 4 else 2)
    # Gradients that autograd makes in 16 bits and adds to an fp32 buffer keep their own memory from step to step: as
    # buckets of torch's DDP, or as the `.grad` of each parameter (DeepSpeed's BF16_Optimizer).
    own = 0.0
    if sharding is None and not shard.fused("grad_accumulation") and gradient > options.param_bytes:
        own = options.param_bytes
    if sharding is not None or own:
        # These gradients are counted by stage: a layer's own working set leaves them out.
        shard = replace(shard, fusions=shard.fusions | {"grad_accumulation"})
    gradients = Gradients(sharding)
    boundary = options.gather_boundary or options.boundary_bytes
    received = 2 * boundary if layout.pp > 1 else 0.0
    known: dict[tuple, Part] = {}

    def footprint(part: StagePart, shares: Shares) -> Part:
        key = (part.alike, shares)
        if key not in known:
            own = (part.architecture(architecture), part.shard(architecture, shard))
            known[key] = layer_part(*own, part.kind, shares) if part.role == "layer" else _EDGE[part.role](*own, shares)
        return known[key]

    footprints = []
    for stage in stages:
        parts = [footprint(part, shares) for part, shares in zip(stage.parts, stage.parameters)]
        parts = [replace(part, kept=0.0, moved=part.kept) if moved else part for part, moved in zip(parts, stage.moved)]
        footprints.append(Footprint(tuple(parts), gradients, received))
    keeping = Keeping(
        weight=options.param_bytes,
        gradient=gradient + own,
        optimizer=training.optimizer,
        zero=scenario.parallelism.zero,
        ranks=layout.shard,
        expert_ranks=layout.expert_shard,
        copies=_copies(shard, scenario),
        gathered=0.0 if sharding is None or sharding.reshard else sharding.param_bytes,
        copied=options.grad_bytes,
        optimizer_outside=training.offload.optimizer != "none",
        parameters_outside=training.offload.parameters != "none",
    )
    accumulates = sharding is not None and options.accumulate_locally and layout.micro_batches > 1
    return StageMemory(
        tuple(footprints),
        keeping,
        float(sharding.grad_bytes) if sharding is not None and accumulates else 0.0,
        # 16-bit gradients are flattened and cast to fp32 for the update.
        gradient + 4.0 if gradient < 4 and sharding is None and training.offload.optimizer == "none" else 0.0,
    )


def _copies(shard: Shard, scenario: Scenario) -> float:
    """Low-precision copies of the weights, by row and by column, kept over the micro-batches of an iteration."""
    return 2.0 * shard.operand if shard.narrow and scenario.parallelism.zero < 3 else 0.0
