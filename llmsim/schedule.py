"""A pipeline schedule played alone: given times per virtual stage, through the same engine as everything else."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from llmsim.engine.plan import Fragment, Item, Lane, Op, Part, Plan
from llmsim.errors import ScheduleError
from llmsim.parallel.schedules import needs_times
from llmsim.parallel.schedules import schedule as find_schedule
from llmsim.parallel.schedules.order import Schedule, outputs, parts, peaks

if TYPE_CHECKING:
    import pandas as pd

Times = float | Sequence[float]
_PHASES = {"F": "forward", "B": "backward", "BW": "backward", "W": "weight"}
_NAMES = {"F": "forward", "B": "backward input", "BW": "backward", "W": "backward weight"}


@dataclass(frozen=True)
class ScheduleResult:
    """What came out. Arrays are by pipeline rank; times in s; `played[rank]` is (ops, 2) of start and end."""

    schedule: Schedule
    played: tuple[np.ndarray, ...]

    @property
    def orders(self) -> tuple[tuple[tuple, ...], ...]:
        """Each rank's ops as tuples: (kind, direction, virtual stage, micro-batch), an FB block holds two of them."""
        return self.schedule.orders

    @cached_property
    def makespan_s(self) -> float:
        """Last end minus first start over all ranks."""
        return max(rows[-1, 1] for rows in self.played) - min(rows[0, 0] for rows in self.played)

    @cached_property
    def busy_s(self) -> np.ndarray:
        return np.array([float((rows[:, 1] - rows[:, 0]).sum()) for rows in self.played])

    @property
    def idle_s(self) -> np.ndarray:
        return self.makespan_s - self.busy_s

    @cached_property
    def span_bubble_s(self) -> float:
        """The papers' bubble: the largest over ranks of (its last end - its first start - its busy time)."""
        spans = np.array([rows[-1, 1] - rows[0, 0] for rows in self.played])
        return float((spans - self.busy_s).max())

    @property
    def bubble_fraction(self) -> float:
        """Mean over ranks of idle time, over the makespan: (p-1)/(m+p-1) for 1F1B."""
        return float(self.idle_s.mean() / self.makespan_s)

    @property
    def bubble_over_ideal(self) -> float:
        """Mean over ranks of idle time over busy time: (p-1)/m for 1F1B."""
        return float((self.idle_s / self.busy_s).mean())

    @cached_property
    def peak_activations(self) -> list[int]:
        """By rank: most (virtual stage, micro-batch) pairs in flight, from the start of F to the end of W."""
        return peaks(self.orders)

    @cached_property
    def peak_activations_until_backward(self) -> list[int]:
        """The same with the pair freed at the end of its input gradient."""
        return peaks(self.orders, until="B")

    @cached_property
    def trace(self) -> "pd.DataFrame":
        """One row an op; an overlapped forward/backward block is a row on `compute` and one on `beside`."""
        from llmsim.trace import trace_frame

        rows = []
        per_direction = self.schedule.micro_batches // self.schedule.directions
        for rank, (order, times) in enumerate(zip(self.orders, self.played)):
            for op, (start, end) in zip(order, times.tolist()):
                for lane, (kind, d, s, i) in zip(("compute", "beside"), parts(op)):
                    chunk = self.schedule.chunk_of(d, s)
                    where = {"rank": rank, "stage": rank, "stream": lane, "micro_batch": i + d * per_direction}
                    what = {"name": _NAMES[kind], "phase": _PHASES[kind], "chunk": chunk, "layer": -1}
                    rows.append({**where, **what, "start_s": start, "end_s": end})
        return trace_frame(rows)


def simulate_schedule(
    name: str | Schedule,
    stages: int | None = None,
    micro_batches: int | None = None,
    chunks: int | None = None,
    forward: Times = 1.0,
    backward: Times = 1.0,
    weight: Times = 1.0,
    comm: float = 0.0,
    overlap: float = 1.0,
    **options: object,
) -> ScheduleResult:
    """Play a schedule (a name, a path to a table, or a `Schedule`).

    forward, backward (input gradient), weight (weight gradient): seconds of one virtual stage, a number or one for
    each virtual stage. comm: seconds between neighbouring stages on different ranks. overlap: time of an overlapped
    forward/backward block over the sum of its parts. options: what a searching schedule takes, such as `memory_limit`.
    Raises `ScheduleError`.
    """
    if isinstance(name, Schedule):
        order = name
    else:
        if needs_times(name):
            options |= {"forward": forward, "backward": backward, "weight": weight, "comm": comm}
        order = find_schedule(name, stages, micro_batches, chunks, **options)
    times = {
        "F": _per_stage("forward", forward, order),
        "B": _per_stage("backward", backward, order),
        "W": _per_stage("weight", weight, order),
    }
    if not comm >= 0:
        raise ScheduleError(f"comm: {comm} is not a time; expected 0 or more seconds")
    if not overlap > 0:
        raise ScheduleError(f"overlap: {overlap} is not a ratio; expected a number above 0")
    return ScheduleResult(order, _play(order, times, comm, overlap))


def _per_stage(key: str, value: Times, order: Schedule) -> list[float]:
    count = order.virtual_stages
    values = [float(value)] * count if isinstance(value, int | float) else [float(x) for x in value]
    if len(values) != count:
        raise ScheduleError(f"{key}: {len(values)} times given; expected one number or one for each of {count} stages")
    if any(not x >= 0 or x == float("inf") for x in values):
        raise ScheduleError(f"{key}: times must be finite and 0 or more")
    return values


def _play(order: Schedule, times: dict[str, list[float]], comm: float, overlap: float) -> tuple[np.ndarray, ...]:
    """(ops, 2) of start and end for each rank; what a rank makes for itself is there at once, for others after comm."""
    from llmsim.engine.player import play

    plan = Plan()
    signals: dict[tuple, int] = {}  # (output, whether it crosses ranks) -> signal
    needed = [[order.dependencies(op) for op in ops] for ops in order.orders]
    for dependency in (dependency for ops in needed for found in ops for dependency in found):
        signals.setdefault(dependency, len(signals))
    plan.signals = len(signals)
    for rank, ops in enumerate(order.orders):
        items = []
        for op, found in zip(ops, needed[rank]):
            seconds = sum(times[part][s] for kind, _, s, _ in parts(op) for part in kind)
            if op[0] == "FB":
                seconds *= overlap
            fires = [
                (signals[made, crosses], comm if crosses else 0.0)
                for made in outputs(op)
                for crosses in (False, True)
                if (made, crosses) in signals
            ]
            waits = tuple(signals[dependency] for dependency in found)
            items.append(Item(Fragment((Op(0, (Part(1, 0.0, seconds),)),)), 0, 0, waits, tuple(fires)))
        plan.lanes.append(Lane(rank, "compute", items))
    return tuple(rows[:, 2:] for rows in play(plan).rows)
