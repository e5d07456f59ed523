"""What the engine plays: lanes of fragments of ops on shared resources. Plain data, no simpy, no transformers.

A *lane* is one executor of one rank class: its items run strictly one after another, as kernels on a CUDA stream do.
An item is one instance of a *fragment*, a serial run of ops that nothing outside looks into. Items wait for signals
and fire signals; that is the only way one lane depends on another.
"""

from dataclasses import dataclass, field
from typing import NamedTuple


class Part(NamedTuple):
    """`repeat` equal steps, each a fixed `latency` (s) and then `seconds` of work at full rate.

    `demands` are (resource, amount used at full rate, in the resource's own unit). While the resources are not
    oversubscribed a step takes latency + seconds; else its speed is the max-min fair one, in which speeds rise together
    in proportion to `pace` until a resource is full. A pace of 1 over what one flow, or one rank's kernel, needs of its
    tightest resource makes shares fair by flow, whether or not flows that are alike are played as one activity.
    """

    repeat: int
    latency: float
    seconds: float
    demands: tuple[tuple[int, float], ...] = ()
    pace: float = 1.0


class Op(NamedTuple):
    """One row of the trace: `label` indexes the label table, `meeting` the classes that must all have arrived."""

    label: int
    parts: tuple[Part, ...]
    meeting: int = -1

    @property
    def seconds(self) -> float:
        """Duration when nothing contends."""
        return sum(part.repeat * (part.latency + part.seconds) for part in self.parts)


class Fragment(NamedTuple):
    """Ops in series. `waits` and `signals` are offsets from the signal base of the instance."""

    ops: tuple[Op, ...]
    waits: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()


class Item(NamedTuple):
    """One instance of a fragment: its tag (index of the tag table), signal base, and signals of its own."""

    fragment: Fragment
    tag: int
    base: int = 0
    waits: tuple[int, ...] = ()
    signals: tuple[tuple[int, float], ...] = ()  # (signal, delay in s after the end of the item)


@dataclass(frozen=True, slots=True)
class Lane:
    """Items in FIFO order; `owner` is the rank class whose rows they are."""

    owner: int
    name: str
    items: list[Item]


@dataclass(frozen=True, slots=True)
class CapacityChange:
    """From `time` on, `resource` has `capacity`: a fault with a start or an end."""

    time: float
    resource: int
    capacity: float


@dataclass(slots=True)
class Plan:
    """Everything that happens: resources by capacity, lanes, and how many signals and meetings there are.

    `meetings[i]` is the number of lanes that take part in meeting i; lanes of different names hold it apart. A negative
    capacity is not allowed; a capacity of 0 stops what needs the resource until a `CapacityChange`.
    """

    capacities: list[float] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    signals: int = 0
    meetings: list[int] = field(default_factory=list)
    changes: list[CapacityChange] = field(default_factory=list)
    background: list[Part] = field(default_factory=list)  # goes on as long as anything else does; no rows of its own

    def new_signal(self) -> int:
        """The id of a signal that nobody else uses."""
        self.signals += 1
        return self.signals - 1

    def new_signals(self, count: int) -> int:
        """The first of `count` consecutive signal ids."""
        self.signals += count
        return self.signals - count
