"""Replays what was played as allocations: when each pass of a rank class began and ended, and what it held.

Time only orders the events; the same passes in block and in kernel detail give the same peak.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmsim.engine.player import Played
from llmsim.memory.stages import StageMemory
from llmsim.parallel.schedules.order import Schedule
from llmsim.program.passes.labels import Tag
from llmsim.program.program import Program

DYNAMIC = ("activations", "temporary", "gradients")
_FORWARD, _BACKWARD, _WEIGHT = 0, 1, 2
_UPDATE = 3


@dataclass(frozen=True)
class Passes:
    """Passes of one rank class. kind: 0 forward, 1 backward (fused, or its first half), 2 weight gradients, 3 update.

    fused: whether a backward makes its weight gradients too. chunk: of the rank. Times in seconds.
    """

    kind: np.ndarray
    fused: np.ndarray
    chunk: np.ndarray
    start: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class Curve:
    """levels[category, event]: bytes of `DYNAMIC` from each time on. updating[event]: an optimizer step goes on."""

    times: np.ndarray
    levels: np.ndarray
    updating: np.ndarray

    @property
    def peak(self) -> int:
        """Index of the event after which most is held."""
        return int(np.argmax(self.levels.sum(axis=0)))

    @property
    def pools(self) -> float:
        """Highest points of passes and of optimizer steps together.

        A caching allocator keeps the blocks of both: the update's few large buffers do not fit into the many small
        gaps that activations leave.
        """
        total = self.levels.sum(axis=0)
        return float(total.max(where=~self.updating, initial=0.0) + total.max(where=self.updating, initial=0.0))


class Replay:
    """Columns of the program's labels and tags, looked up once for all classes."""

    def __init__(self, program: Program, played: Played) -> None:
        phases = {"forward": _FORWARD, "weight": _WEIGHT, "update": _UPDATE}
        self.program, self.schedule = program, program.schedule
        self.phase = np.array([phases.get(label.phase, _BACKWARD) for label in program.labels])
        self.micro_batch = np.array([tag.micro_batch for tag in program.tags])
        self.chunk = np.array([tag.chunk for tag in program.tags])
        self._halves: dict[tuple[int, tuple[int, ...]], list[tuple[int, int]]] = {}
        self.lanes: list[list[tuple[str, np.ndarray]]] = [[] for _ in program.classes.count]
        for lane, rows in zip(program.plan.lanes, played.rows):
            if lane.name in ("compute", "beside") and len(rows):
                self.lanes[lane.owner].append((lane.name, rows))

    def passes(self, number: int) -> list[Passes]:
        """Of one class, lane by lane, in the order in which they were played."""
        stage = int(self.program.stage_of[number])
        split = _split_tags(self.schedule, stage, self.program.tags)
        found = []
        for name, rows in self.lanes[number]:
            tags, passes = self._passes(rows, split)
            # Halves that are split stand in the compute lane.
            silent = split is not None and name == "compute"
            found.append(self._with_silent(tags, passes, stage) if silent else passes)
        return found

    def _with_silent(self, tags: np.ndarray, passes: Passes, stage: int) -> Passes:
        """With the halves of backwards that do nothing in their lane, as that of an embedding for its input.

        Each takes no time between its neighbours in the order; what it hands to the other half counts from then on.
        """
        iterations = np.unique([self.program.tags[tag].iteration for tag in np.unique(tags)])
        place_of = {half: place for place, half in enumerate(zip(tags.tolist(), passes.kind.tolist()))}
        places, silent, before = [], [], 0
        for half in self._wanted(stage, tuple(iterations.tolist())):
            if half in place_of:
                before = place_of[half] + 1
            elif half[1] != _FORWARD:
                places.append(before)
                silent.append(half)
        if not silent:
            return passes
        tag, kind = (np.array(column) for column in zip(*silent))
        ended = np.append(passes.end, 0.0)[np.array(places) - 1]
        return Passes(
            np.insert(passes.kind, places, kind),
            np.insert(passes.fused, places, False),
            np.insert(passes.chunk, places, self.chunk[tag]),
            np.insert(passes.start, places, ended),
            np.insert(passes.end, places, ended),
        )

    def _wanted(self, stage: int, iterations: tuple[int, ...]) -> list[tuple[int, int]]:
        """(tag, kind) of all that the order has a stage do in its compute lane, but fused backwards."""
        if (stage, iterations) not in self._halves:
            kinds = {"F": _FORWARD, "FB": _FORWARD, "B": _BACKWARD, "W": _WEIGHT}  # a pair's backward runs beside
            tag_of = {tag: number for number, tag in enumerate(self.program.tags)}
            per_direction = self.schedule.micro_batches_of_direction
            self._halves[stage, iterations] = [
                (
                    tag_of[Tag(op[3] + op[1] * per_direction, self.schedule.chunk_of(op[1], op[2]), iteration)],
                    kinds[op[0]],
                )
                for iteration in iterations
                for op in self.schedule.orders[stage]
                if op[0] in kinds
            ]
        return self._halves[stage, iterations]

    def _passes(self, rows: np.ndarray, split: np.ndarray | None) -> tuple[np.ndarray, Passes]:
        tag = rows[:, 1].astype(np.int64)
        phase = self.phase[rows[:, 0].astype(np.int64)]
        piped = self.micro_batch[tag] >= 0
        if split is None:
            kind = np.where(phase == _FORWARD, _FORWARD, _BACKWARD)
        else:
            kind = np.where((phase == _WEIGHT) & ~split[tag], _BACKWARD, phase)
        kind = np.where(piped, kind, _UPDATE)
        key = tag * 4 + kind
        first = np.flatnonzero(np.diff(key, prepend=-1))
        if split is not None:
            # What follows a weight half under the same tag (a scatter of gradients) belongs to it.
            late = (kind[first] == _BACKWARD) & split[tag[first]]
            late[1:] &= (kind[first[:-1]] == _WEIGHT) & (tag[first[1:]] == tag[first[:-1]])
            late[:1] = False
            first = first[~late]
            first = first[np.diff(key[first], prepend=-1) != 0]
        last = np.append(first[1:], len(rows)) - 1
        tags = tag[first]
        fused = np.ones(len(first), bool) if split is None else ~split[tags]
        return tags, Passes(kind[first], fused, self.chunk[tags], rows[first, 2], rows[last, 3])


def _split_tags(schedule: Schedule, stage: int, tags: Sequence) -> np.ndarray | None:
    """bool[tags]: whether the backward of this micro-batch and chunk is split on a stage; None: none is."""
    if not schedule.split_backward:
        return None
    per_direction = schedule.micro_batches_of_direction
    halves = {
        (op[3] + op[1] * per_direction, schedule.chunk_of(op[1], op[2]))
        for op in schedule.orders[stage]
        if op[0] == "W"
    }
    return np.array([(tag.micro_batch, tag.chunk) in halves for tag in tags])


def most_moved(lanes: Sequence[Passes], units: Sequence[int], memory: StageMemory) -> float:
    """Bytes of activations that a rank has outside at once, at most: from a forward's begin to its backward's end."""
    moved = np.array([memory.footprints[unit].moved for unit in units])
    if not moved.any():
        return 0.0
    times, changes = [], []
    for passes in lanes:
        size = moved[np.maximum(passes.chunk, 0)]
        out, back = passes.kind == _FORWARD, passes.kind == _BACKWARD
        times += [passes.start[out], passes.end[back]]
        changes += [size[out], -size[back]]
    moments, deltas = np.concatenate(times), np.concatenate(changes)
    return float(np.cumsum(deltas[np.lexsort((deltas, moments))]).max())


def curve(lanes: Sequence[Passes], units: Sequence[int], memory: StageMemory, held: float) -> Curve:
    """What the passes of one rank hold over time, beside its model states.

    units[chunk]: the virtual stage. held: parameters that the rank's optimizer updates.
    """
    footprints = [memory.footprints[unit] for unit in units]
    kept = np.array([f.kept for f in footprints])
    waiting = np.array([f.waiting for f in footprints])
    # Highest point beside what is kept, by kind of pass and chunk; a fused backward is row 3.
    work = np.array(
        [
            [f.forward for f in footprints],
            [f.backward_input for f in footprints],
            [f.backward_weight for f in footprints],
            [f.backward for f in footprints],
        ]
    )
    whole = np.array([f.parameters.total for f in footprints]) * memory.whole_gradients
    times, deltas, updates = [], [], []
    for passes in lanes:
        kind, chunk = passes.kind, np.maximum(passes.chunk, 0)
        update = kind == _UPDATE
        count = len(kind)
        delta = np.zeros((len(DYNAMIC), count, 2))  # at the start and at the end of each pass
        row = np.where((kind == _BACKWARD) & passes.fused, 3, np.minimum(kind, 2))
        extra = np.where(update, held * memory.update, work[row, chunk])
        delta[1, :, 0], delta[1, :, 1] = extra, -extra
        delta[0, :, 0] = np.where(kind == _FORWARD, kept[chunk], 0.0)
        freed = np.select(
            [update, kind == _FORWARD, (kind == _BACKWARD) & passes.fused, kind == _BACKWARD],
            [0.0, 0.0, kept[chunk], kept[chunk] - waiting[chunk]],
            waiting[chunk],
        )
        delta[0, :, 1] = -freed
        if memory.whole_gradients:
            makes = (kind == _WEIGHT) | ((kind == _BACKWARD) & passes.fused)
            for number in range(len(units)):
                own = np.flatnonzero(makes & (chunk == number))
                if len(own):
                    delta[2, own[0], 0] += whole[number]
                    delta[2, own[-1], 1] -= whole[number]
        updates.append(np.column_stack((update, np.zeros_like(update))).ravel())
        times.append(np.column_stack((passes.start, passes.end)).ravel())
        deltas.append(delta.reshape(len(DYNAMIC), 2 * count))
    moments, changes, updating = np.concatenate(times), np.concatenate(deltas, axis=1), np.concatenate(updates)
    if len(lanes) > 1:
        # What ends at a moment is freed before what begins then on the other lane is allocated; between them is what
        # takes no time, whose begin stays before its end.
        silent = np.repeat(np.concatenate([passes.start == passes.end for passes in lanes]), 2)
        begins = np.arange(len(moments)) % 2 == 0
        order = np.lexsort((np.where(silent, 1, 2 * begins), moments))
        moments, changes, updating = moments[order], changes[:, order], updating[order]
    return Curve(moments, np.cumsum(changes, axis=1), updating)
