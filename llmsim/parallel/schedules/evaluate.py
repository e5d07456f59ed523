"""When each op of a schedule runs, computed straight from the definition.

A rank plays its ops strictly in order; each starts as soon as the rank is free and its inputs have arrived.
An input from another rank arrives `comm` after its producer ends; links are unshared and sending does not
occupy the rank. This is the whole model: no queueing, no overlap except in blocks. What sharing of links and
of the GPU adds is the engine's business; without sharing the engine must agree with this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmsim.errors import ScheduleError
from llmsim.parallel.schedules.order import Op, Schedule, op_text, outputs, peaks

Times = float | Sequence[float]


@dataclass(frozen=True)
class Timeline:
    """When each op runs, in the unit of the times given (s); `start[rank][k]` is of `orders[rank][k]`."""

    schedule: Schedule
    start: tuple[np.ndarray, ...]
    end: tuple[np.ndarray, ...]

    @cached_property
    def makespan(self) -> float:
        """Last end minus first start over all ranks."""
        return float(max(end[-1] for end in self.end) - min(start[0] for start in self.start))

    @cached_property
    def busy(self) -> np.ndarray:
        """float[p]: sum of each rank's durations; a block counts once."""
        return np.array([float((end - start).sum()) for start, end in zip(self.start, self.end)])

    @property
    def idle(self) -> np.ndarray:
        """float[p]: makespan minus busy."""
        return self.makespan - self.busy

    @cached_property
    def span(self) -> np.ndarray:
        """float[p]: each rank's last end minus its first start."""
        return np.array([float(end[-1] - start[0]) for start, end in zip(self.start, self.end)])

    @property
    def span_bubble(self) -> float:
        """The zero-bubble papers' bubble: the largest of (span - busy) over ranks."""
        return float((self.span - self.busy).max())

    @property
    def peaks(self) -> list[int]:
        """By rank: most (virtual stage, micro-batch) pairs in flight until their W ends."""
        return peaks(self.schedule.orders, "W")

    @property
    def peaks_until_backward(self) -> list[int]:
        """By rank: the same until their B ends."""
        return peaks(self.schedule.orders, "B")


def evaluate(
    schedule: Schedule, forward: Times, backward: Times, weight: Times, comm: Times = 0.0, fb: float = 1.0
) -> Timeline:
    """Play a schedule.

    forward, backward (input gradient only), weight: time of one virtual stage, a number or one for each
    virtual stage. comm: transfer time between neighbouring stages on different ranks, a number or one for
    what each virtual stage sends. fb: time of an overlapped block over the sum of its parts. Raises
    `ScheduleError` when the lists have the wrong length or the order deadlocks.
    """
    seconds = stage_times(schedule.virtual_stages, forward, backward, weight, comm)
    sending = seconds["comm"]
    done: dict[tuple, float] = {}
    waiting: dict[tuple, int] = {}
    starts: list[list[float]] = [[] for _ in schedule.orders]
    ends: list[list[float]] = [[] for _ in schedule.orders]
    dependencies = schedule.dependencies
    runnable = list(range(schedule.stages))
    while runnable:
        rank = runnable.pop()
        ops, started, ended = schedule.orders[rank], starts[rank], ends[rank]
        now = ended[-1] if ended else 0.0
        while len(ended) < len(ops):
            op = ops[len(ended)]
            begin = now
            for part, crosses in dependencies(op):
                ready = done.get(part)
                if ready is None:
                    waiting[part] = rank
                    break
                if crosses:
                    ready += sending[part[2]]
                if ready > begin:
                    begin = ready
            else:
                now = begin + duration(op, seconds, fb)
                started.append(begin)
                ended.append(now)
                for part in outputs(op):
                    done[part] = now
                    waiter = waiting.pop(part, None)
                    if waiter is not None and waiter != rank:
                        runnable.append(waiter)
                continue
            break
    if any(len(ended) < len(ops) for ended, ops in zip(ends, schedule.orders)):
        raise ScheduleError(_deadlock(schedule, [len(ended) for ended in ends], done))
    return Timeline(schedule, tuple(map(np.array, starts)), tuple(map(np.array, ends)))


def stage_times(
    count: int, forward: Times, backward: Times, weight: Times, comm: Times = 0.0
) -> dict[str, list[float]]:
    """One list of `count` times for each of F, B, W and comm. Raises `ScheduleError` naming the wrong argument."""
    given = {"F": ("forward", forward), "B": ("backward", backward), "W": ("weight", weight), "comm": ("comm", comm)}
    return {kind: _times(count, name, value) for kind, (name, value) in given.items()}


def _times(count: int, name: str, value: Times) -> list[float]:
    expected = f"expected one number, or one for each of {count} virtual stages"
    try:
        times = [float(value)] * count if np.ndim(value) == 0 else [float(x) for x in value]
    except (TypeError, ValueError):
        raise ScheduleError(f"{name}: {value!r} is no time; {expected}") from None
    if len(times) != count:
        raise ScheduleError(f"{name}: {len(times)} times given; {expected}")
    for stage, time in enumerate(times):
        if not 0 <= time < float("inf"):
            where = f" of virtual stage {stage}" if np.ndim(value) else ""
            raise ScheduleError(f"{name}: {time:g}{where} is no time; times must be finite and 0 or more")
    return times


def duration(op: Op, seconds: dict[str, list[float]], fb: float = 1.0) -> float:
    """Time of one op, given `stage_times`; fb: of an overlapped block over the sum of its parts."""
    kind = op[0]
    if kind == "BW":
        return seconds["B"][op[2]] + seconds["W"][op[2]]
    if kind == "FB":
        return fb * (seconds["F"][op[2]] + seconds["B"][op[5]] + seconds["W"][op[5]])
    return seconds[kind][op[2]]


def _deadlock(schedule: Schedule, played: list[int], done: dict) -> str:
    """One sentence: each rank's first blocked op and what it waits for."""
    stuck = []
    for rank, (position, ops) in enumerate(zip(played, schedule.orders)):
        if position < len(ops):
            op = ops[position]
            missing = next(part for part, _ in schedule.dependencies(op) if part not in done)
            want = op_text(missing, schedule.directions)
            where = _where(schedule, missing)
            stuck.append(f"rank {rank} at op {position}, {op_text(op, schedule.directions)}, for {want} ({where})")
    shown = "; ".join(stuck[:8]) + (f"; and {len(stuck) - 8} more ranks" if len(stuck) > 8 else "")
    return f"schedule {schedule.name!r} deadlocks; waiting: {shown}"


def _where(schedule: Schedule, part: tuple) -> str:
    rank = schedule.rank_of(part[1], part[2])
    for position, op in enumerate(schedule.orders[rank]):
        if part in outputs(op):
            return f"op {position} of rank {rank}"
    return f"never done on rank {rank}"
