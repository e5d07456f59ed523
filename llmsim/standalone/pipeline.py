"""A pipeline schedule played alone: given times per virtual stage, through the same engine as everything else."""

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmsim.engine.plan import Fragment, Item, Lane, Op, Part, Plan
from llmsim.engine.player import play
from llmsim.errors import ScheduleError, SimulationError
from llmsim.parallel.schedules import evaluate, needs_times
from llmsim.parallel.schedules import schedule as find_schedule
from llmsim.parallel.schedules.evaluate import Times, duration, stage_times
from llmsim.parallel.schedules.order import Schedule, outputs, parts, peaks
from llmsim.trace import trace_frame

if TYPE_CHECKING:
    import pandas as pd

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

    @property
    def metrics(self) -> dict[str, object]:
        """Everything above as plain data, for JSON and for tables."""
        order = self.schedule
        return {
            "schedule": order.name,
            "stages": order.stages,
            "micro_batches": order.micro_batches,
            "chunks": order.chunks,
            "virtual_stages": order.virtual_stages,
            "parameter_copies": order.parameter_copies,
            "split_backward": order.split_backward,
            "makespan_s": self.makespan_s,
            "bubble_fraction": self.bubble_fraction,
            "bubble_over_ideal": self.bubble_over_ideal,
            "span_bubble_s": self.span_bubble_s,
            "busy_s": self.busy_s.tolist(),
            "idle_s": self.idle_s.tolist(),
            "peak_activations": self.peak_activations,
            "peak_activations_until_backward": self.peak_activations_until_backward,
        }

    @cached_property
    def memory(self) -> "pd.DataFrame":
        """Activations held over time: `rank, time_s, activations, category`, a row at each change.

        Counted in micro-batches through all chunks of a rank, so that schedules with several chunks compare with those
        with one: (virtual stage, micro-batch) pairs over chunks, from the start of F to the end of W.
        """
        import pandas as pd

        columns: dict[str, list] = {"rank": [], "time_s": [], "activations": []}
        for rank, (order, times) in enumerate(zip(self.orders, self.played)):
            held = 0
            for op, (start, end) in zip(order, times.tolist()):
                for kind, *_ in parts(op):
                    if kind != "B":
                        held += 1 if kind == "F" else -1
                        columns["rank"].append(rank)
                        columns["time_s"].append(start if kind == "F" else end)
                        columns["activations"].append(held / self.schedule.chunks)
        return pd.DataFrame(columns).assign(category="activations")

    @cached_property
    def trace(self) -> "pd.DataFrame":
        """One row an op; an overlapped forward/backward block is a row on `compute` and one on `beside`."""
        rows = []
        per_direction = self.schedule.micro_batches_of_direction
        for rank, (order, times) in enumerate(zip(self.orders, self.played)):
            for op, (start, end) in zip(order, times.tolist()):
                for lane, (kind, d, s, i) in zip(("compute", "beside"), parts(op)):
                    chunk = self.schedule.chunk_of(d, s)
                    where = {"rank": rank, "stage": rank, "stream": lane, "micro_batch": i + d * per_direction}
                    what = {"name": _NAMES[kind], "phase": _PHASES[kind], "chunk": chunk, "layer": -1}
                    rows.append({**where, **what, "start_s": start, "end_s": end})
        return trace_frame(rows)


def simulate_schedule(
    name: str | Path | Schedule,
    stages: int | None = None,
    micro_batches: int | None = None,
    chunks: int | None = None,
    forward: Times = 1.0,
    backward: Times = 1.0,
    weight: Times = 1.0,
    comm: Times = 0.0,
    overlap: float = 1.0,
    **options: object,
) -> ScheduleResult:
    """Play a schedule (a name, a path to a table, or a `Schedule`).

    forward, backward (input gradient), weight (weight gradient): seconds of one virtual stage, a number or one for
    each virtual stage. comm: seconds from one stage to a neighbour on another rank, a number or one for what each
    virtual stage sends. overlap: time of an overlapped forward/backward block over the sum of its parts. options: what
    a searching schedule takes, such as `memory_limit`. Raises `ScheduleError`, also for an order that deadlocks.
    """
    if not isinstance(overlap, Real) or not 0 < overlap < float("inf"):
        raise ScheduleError(f"overlap: {overlap!r} is not a ratio; expected a number above 0")
    if isinstance(name, Schedule):
        order = name
    else:
        if needs_times(name):
            options |= {"forward": forward, "backward": backward, "weight": weight, "comm": comm}
        order = find_schedule(name, stages, micro_batches, chunks, **options)
    seconds = stage_times(order.virtual_stages, forward, backward, weight, comm)
    return ScheduleResult(order, _play(order, seconds, overlap))


def _play(order: Schedule, seconds: dict[str, list[float]], overlap: float) -> tuple[np.ndarray, ...]:
    """(ops, 2) of start and end for each rank; what a rank makes for itself is there at once, for others after comm."""
    signals: dict[tuple, int] = {}  # (output, whether it crosses ranks) -> signal
    waits = [
        [tuple([signals.setdefault(found, len(signals)) for found in order.dependencies(op)]) for op in ops]
        for ops in order.orders
    ]
    plan, fragments = Plan(signals=len(signals)), {}
    for rank, (ops, awaited) in enumerate(zip(order.orders, waits)):
        items = []
        for op, needed in zip(ops, awaited):
            length = duration(op, seconds, overlap)
            fragment = fragments.get(length)
            if fragment is None:
                fragment = fragments[length] = Fragment((Op(0, (Part(1, 0.0, length),)),))
            fires = []
            for made in outputs(op):
                if (signal := signals.get((made, False))) is not None:
                    fires.append((signal, 0.0))
                if (signal := signals.get((made, True))) is not None:
                    fires.append((signal, seconds["comm"][made[2]]))
            items.append(Item(fragment, 0, 0, needed, tuple(fires)))
        plan.lanes.append(Lane(rank, "compute", items))
    try:
        return tuple(rows[:, 2:] for rows in play(plan).rows)
    except SimulationError:
        # The evaluator knows what each op is and what it lacks; the engine knows signals only.
        evaluate(order, seconds["F"], seconds["B"], seconds["W"], seconds["comm"])
        raise
