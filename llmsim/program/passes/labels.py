"""The static columns of the trace: each op's label, and the tag that says for which micro-batch it ran."""

from dataclasses import dataclass, field
from typing import NamedTuple

from llmsim.parallel.schedules.order import Schedule

CATEGORIES = (
    "compute",
    "exposed_tp",
    "exposed_cp",
    "exposed_ep",
    "exposed_pp",
    "exposed_dp",
    "offload",
    "data",
    "optimizer",
    "launch",  # the GPU stands still until its host has launched what comes next
)
NO_CATEGORY = -1  # launches: what waits for them is counted where it waits
_OF_STREAM = {
    "compute": "compute",
    "beside": "compute",
    "tp": "exposed_tp",
    "cp": "exposed_cp",
    "ep": "exposed_ep",
    "pp_send": "exposed_pp",
    "pp_recv": "exposed_pp",
    "dp": "exposed_dp",
    "offload": "offload",
    "prefetch": "offload",
    "cpu": "offload",
    "host": "data",
}
STREAMS = (*_OF_STREAM, "launch")


@dataclass(frozen=True, slots=True)
class Label:
    """What is the same for every instance of an op.

    `shares` splits a block's time over `CATEGORIES` and idle; `peak_seconds` is what the FLOPs take at the peak rate
    of their own precision, or of the training's where that is higher; `sent` is what one rank sends: (group, bytes
    inside the node, bytes outside); `hidden` is a block's communication: (group, seconds beside computing, in all).
    """

    name: str
    kind: str  # compute | collective | p2p | offload | optimizer | host
    stream: str
    phase: str  # forward | backward | weight | recompute | update
    layer: int = -1
    group: str = ""
    flops: float = 0.0
    peak_seconds: float = 0.0
    bytes: float = 0.0
    peer: int = -1  # p2p: the class that receives
    shares: tuple[float, ...] | None = None
    sent: tuple[tuple[str, float, float], ...] = ()
    hidden: tuple[tuple[str, float, float], ...] = ()

    @property
    def inside(self) -> dict[str, float]:
        """`shares` by name; empty for an op that is no block."""
        return {} if self.shares is None else dict(zip((*CATEGORIES, "idle"), self.shares))

    @property
    def category(self) -> int:
        """Index into `CATEGORIES` of the seconds this op owns when nothing computes beside it, or NO_CATEGORY."""
        if self.kind == "optimizer":
            return CATEGORIES.index("optimizer")
        if self.stream == "launch":
            return NO_CATEGORY
        if self.kind == "host" and self.stream == "compute":
            return CATEGORIES.index("launch")
        return CATEGORIES.index(_OF_STREAM[self.stream])


class Tag(NamedTuple):
    """Which instance: -1 where it does not apply."""

    micro_batch: int = -1
    chunk: int = -1
    iteration: int = 0


@dataclass(slots=True)
class Numbered:
    """Values numbered in order of first use."""

    values: list = field(default_factory=list)
    index: dict = field(default_factory=dict)

    def number(self, value) -> int:
        found = self.index.get(value)
        if found is None:
            found = self.index[value] = len(self.values)
            self.values.append(value)
        return found


@dataclass(slots=True)
class PassTags:
    """Numbers of the tags of passes and of what is between them."""

    schedule: Schedule
    tags: Numbered
    known: dict[tuple[int, int, int, int], int] = field(default_factory=dict)

    def number(self, direction: int, stage: int, micro_batch: int, iteration: int) -> int:
        """Of a pass of a virtual stage; micro-batches count within their direction."""
        key = (direction, stage, micro_batch, iteration)
        found = self.known.get(key)
        if found is None:
            number = micro_batch + direction * self.schedule.micro_batches_of_direction
            tag = Tag(number, self.schedule.chunk_of(direction, stage), iteration)
            found = self.known[key] = self.tags.number(tag)
        return found

    def between(self, iteration: int) -> int:
        """Of what an iteration does outside its passes."""
        return self.tags.number(Tag(iteration=iteration))
