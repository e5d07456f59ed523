"""No simulation of a layout can hold less memory than this says.

Counted are model states, and as many activations as the schedule keeps in flight.
"""

from functools import lru_cache

from llmsim.catalogue.memory_constants import memory_constants
from llmsim.memory.stages import StageMemory, stage_memory
from llmsim.program.stages.shares import Shares
from llmsim.studies.search.outline import Outline


def least_bytes(outline: Outline) -> tuple[float, float]:
    """(bytes on the fullest GPU, at least; bytes that a GPU has)."""
    constants, memory = memory_constants(), _memory(outline)
    most = 0.0
    for rank in range(outline.setup.schedule.stages):
        stages = [stage for _, stage in outline.held(rank)]
        footprints = [memory.footprints[s] for s in stages]
        shares = sum((footprint.parameters for footprint in footprints), Shares(0.0, 0.0))
        flight = outline.orders.peaks[rank]
        kept = flight * min(footprint.kept for footprint in footprints)
        if outline.setup.schedule.split_backward:
            # Between the halves of a backward less may be held than before them.
            kept = flight * min(min(f.kept, f.waiting) for f in footprints)
        coming = max(kept, max(f.kept + f.forward for f in footprints))
        states = memory.keeping.of(shares).total
        most = max(most, states + coming)  # gaps between tensors are given back when memory runs short
        if memory.whole_gradients:
            late = outline.orders.late[rank]
            whole = [f.parameters.total for f in footprints]
            summed = memory.whole_gradients * (max(whole) if late is None else sum(whole))
            most = max(most, states + summed + (late or 0) * min(f.kept for f in footprints))
    gpu = outline.setup.resolved.topology.gpu
    return most + constants.workspaces, gpu.memory_bytes - constants.context


def _memory(outline: Outline) -> StageMemory:
    setup = outline.setup
    p, t, layout = setup.scenario.parallelism, setup.scenario.training, setup.resolved.layout
    key = (
        setup.options, setup.shard, setup.resolved.architecture, t.grad_dtype, t.optimizer, t.offload, p.zero,
        layout.shard, layout.expert_shard, layout.pp > 1, layout.micro_batches > 1,
        *((stage.parts, stage.parameters, stage.moved) for stage in setup.stages),
    )  # fmt: skip
    return _remembered(_Keyed(key, outline))


class _Keyed:
    """An outline that counts as equal to another of which `stage_memory` takes the same."""

    def __init__(self, key: tuple, outline: Outline) -> None:
        self.key, self.outline = key, outline

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self.key == other.key


@lru_cache(maxsize=512)
def _remembered(keyed: _Keyed) -> StageMemory:
    return stage_memory(keyed.outline.setup.scenario, keyed.outline.setup.stages)
