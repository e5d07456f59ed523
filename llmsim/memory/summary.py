"""The memory of a run: peaks and their parts by stage, whether it fits, and the curve over time."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.catalogue.memory_constants import memory_constants
from llmsim.engine.player import Played
from llmsim.memory.outside import Store, stores
from llmsim.memory.replay import DYNAMIC, Curve, Replay, curve, most_moved
from llmsim.memory.stages import StageMemory, stage_memory
from llmsim.memory.states import States
from llmsim.program.program import Program
from llmsim.program.stages.shares import Shares
from llmsim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

GIB = 2.0**30
# Of the capacity. A peak counts the gaps that an allocator usually leaves between tensors as long as they fit: as much
# as this is held only where they do not.
TIGHT = 0.999
CATEGORIES = ("parameters", "gradients", "optimizer", "activations", "temporary", "reserved")


@dataclass(frozen=True)
class ClassMemory:
    """One rank class: its model states, what its passes held over time, and what its libraries reserve (bytes).

    buffers: of communicators, outside the allocator. workspaces: of math libraries. room: what the device has.
    """

    rank: int
    stage: int
    states: States
    curve: Curve
    buffers: float
    workspaces: float
    room: float

    @cached_property
    def parts(self) -> dict[str, float]:
        """Bytes by category when most is held; they add up to `peak`."""
        at = dict(zip(DYNAMIC, self.curve.levels[:, self.curve.peak].tolist()))
        return {
            "parameters": self.states.parameters,
            "gradients": self.states.gradients + at["gradients"],
            "optimizer": self.states.optimizer,
            "activations": at["activations"],
            "temporary": at["temporary"],
            "reserved": self.reserved,
        }

    @property
    def coming_and_going(self) -> float:
        return float(self.curve.levels[:, self.curve.peak].sum())

    @property
    def allocated(self) -> float:
        """Highest sum of tensors: PyTorch's max_memory_allocated."""
        return self.states.total + self.coming_and_going + self.workspaces

    @property
    def _gaps(self) -> float:
        """What the allocator holds between tensors, if it may."""
        return self.curve.pools * (1 + memory_constants().fragmentation) - self.coming_and_going

    @property
    def in_allocator(self) -> float:
        """PyTorch's max_memory_reserved: free blocks are given back before an allocation fails."""
        return self.allocated + min(self._gaps, max(0.0, self.room - self.allocated - self.buffers))

    @property
    def reserved(self) -> float:
        """Beyond tensors: gaps between allocations, workspaces, communication buffers."""
        return self.in_allocator - self.allocated + self.workspaces + self.buffers

    @property
    def peak(self) -> float:
        """All that the device holds beside the context; more than its capacity where tensors and buffers are."""
        return self.in_allocator + self.buffers


@dataclass(frozen=True)
class Memory:
    """classes: one entry a rank class. total: bytes of the device; context: of it, what is gone before training.

    outside: CPU memory and disks of the nodes, where something is offloaded to them.
    """

    classes: tuple[ClassMemory, ...]
    total: float
    context: float
    outside: dict[str, Store]

    @property
    def capacity(self) -> float:
        return self.total - self.context

    @cached_property
    def worst(self) -> ClassMemory:
        return max(self.classes, key=lambda entry: entry.peak)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The `memory` of a result (GiB). Of each pipeline stage the class that holds most."""
        stages: dict[int, ClassMemory] = {}
        for entry in self.classes:
            if entry.stage not in stages or entry.peak > stages[entry.stage].peak:
                stages[entry.stage] = entry
        worst = self.worst
        return {
            "capacity_gib": self.capacity / GIB,
            "peak_gib": worst.peak / GIB,
            "fits": worst.peak <= self.capacity and all(store.fits for store in self.outside.values()),
            "peak_allocated_gib": max(entry.allocated for entry in self.classes) / GIB,
            "peak_reserved_gib": max(entry.in_allocator for entry in self.classes) / GIB,
            "peak_device_gib": (worst.peak + self.context) / GIB,
            "per_stage": [
                {"stage": stage}
                | {f"{name}_gib": entry.parts[name] / GIB for name in CATEGORIES}
                | {"peak_gib": entry.peak / GIB}
                for stage, entry in sorted(stages.items())
            ],
        } | {place: store.summary for place, store in self.outside.items()}

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """rank (representative), time_s, allocated_bytes, category: what each category holds from a time on."""
        import pandas as pd

        columns = [_rows(entry) for entry in self.classes]
        rank, times, held, category = (np.concatenate(part) for part in zip(*columns))
        names = pd.Categorical.from_codes(category, list(CATEGORIES))
        return pd.DataFrame({"rank": rank, "time_s": times, "allocated_bytes": held, "category": names})


def _rows(entry: ClassMemory) -> tuple[np.ndarray, ...]:
    """Steady categories are one row at time 0; the others begin at 0 and have a row wherever they change."""
    steady = {
        "parameters": entry.states.parameters,
        "gradients": entry.states.gradients,
        "optimizer": entry.states.optimizer,
        "reserved": entry.reserved,
    }
    times, held, names = [], [], []
    for name in CATEGORIES:
        start, own_times, own = steady.get(name, 0.0), np.empty(0), np.empty(0)
        if name in DYNAMIC:
            level = entry.curve.levels[DYNAMIC.index(name)]
            changed = np.flatnonzero(np.diff(level, prepend=0.0))
            own_times, own = entry.curve.times[changed], level[changed] + start
        times.append(np.concatenate(([0.0], own_times)))
        held.append(np.concatenate(([start], own)))
        names.append(np.full(len(own) + 1, CATEGORIES.index(name)))
    time = np.concatenate(times)
    return np.full(len(time), entry.rank), time, np.concatenate(held), np.concatenate(names)


def memory_of(scenario: Scenario, program: Program, played: Played) -> Memory:
    """What every rank class held while the program was played."""
    constants, memory = memory_constants(), stage_memory(scenario, program.stages)
    replay, classes = Replay(program, played), program.classes
    total = scenario.resolve().topology.gpu.memory_bytes
    room = total - constants.context
    known: dict[int, tuple[list[int], Shares, float]] = {}
    entries, outside, moved = [], [], []
    for number, rank in enumerate(classes.representative.tolist()):
        stage = int(program.stage_of[number])
        if stage not in known:
            known[stage] = _of_stage(program, stage, memory)
        units, shares, held = known[stage]
        passes = replay.passes(number)
        outside.append(memory.keeping.outside(shares))
        moved.append(most_moved(passes, units, memory))
        entries.append(
            ClassMemory(
                rank=rank,
                stage=stage,
                states=memory.keeping.of(shares),
                curve=curve(passes, units, memory, held),
                buffers=communicators(program.groups[number]) * constants.nccl,
                workspaces=constants.workspaces,
                room=room,
            )
        )
    return Memory(tuple(entries), total, constants.context, stores(scenario, program, outside, moved))


def _of_stage(program: Program, stage: int, memory: StageMemory) -> tuple[list[int], Shares, float]:
    """Virtual stages of a pipeline rank by chunk, their parameters, and how many of them its optimizer updates."""
    schedule = program.schedule
    units = {
        schedule.chunk_of(direction, unit): unit
        for direction in range(schedule.directions)
        for unit in range(schedule.virtual_stages)
        if schedule.rank_of(direction, unit) == stage
    }
    order = [units[chunk] for chunk in sorted(units)]
    shares = sum((memory.footprints[unit].parameters for unit in order), Shares(0.0, 0.0))
    keeping = memory.keeping
    held = shares.total
    if keeping.zero:
        held = shares.dense / keeping.ranks + shares.expert / keeping.expert_ranks
    return order, shares, held


def communicators(groups: Mapping[str, Any]) -> int:
    """Communicators of a rank that move data: groups of more than one rank."""
    return sum(place.group.ranks > 1 for place in groups.values() if hasattr(place.group, "ranks"))
