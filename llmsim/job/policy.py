"""What is played: one frozen value that holds the job's length, its paces, its failures and how it answers them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from llmsim.job.failures import Failures
from llmsim.job.spread import Spread


class State(NamedTuple):
    """What tells one iteration time from another: replicas that are missing, a slow GPU, a flapping link."""

    missing: int = 0
    slow: bool = False
    flapping: bool = False


HEALTHY = State()


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """every: iterations between saves. stall: s that a save stops training.

    persist: s after the stall until the checkpoint can be read from storage. peer: s until the memory of another node
    holds it; None: it is never there. storage_every: each n-th save goes to storage. slowed: time of an iteration
    beside such a copy over one without. load, load_peer: s to read it back from storage, and from peers. keep:
    checkpoints that are kept; None: all. size: bytes of one.
    """

    every: int
    stall: float
    persist: float = 0.0
    peer: float | None = None
    storage_every: int = 1
    slowed: float = 1.0
    load: float = 0.0
    load_peer: float = 0.0
    keep: int | None = None
    size: float = 0.0

    @property
    def copying(self) -> float:
        """Seconds after a save in which something is copied beside training."""
        return self.persist if self.peer is None else self.peer


@dataclass(frozen=True, slots=True)
class Recovery:
    """From a failure until training goes on, loading apart. warm_up: s that the first iterations take longer in all."""

    detect: Spread
    diagnose: float
    restart: Spread
    warm_up: float = 0.0

    @property
    def mean(self) -> float:
        return self.detect.mean + self.diagnose + self.restart.mean + self.warm_up


@dataclass(frozen=True, slots=True)
class Spares:
    """nodes: that stand by. swap: s until one stands in. repair: of a node, None: never; switch_repair: of a switch.

    behind_switch: nodes that a failed switch takes with it.
    """

    nodes: int
    swap: float
    repair: Spread | None
    switch_repair: Spread | None
    behind_switch: int = 1


@dataclass(frozen=True, slots=True)
class Elastic:
    """Going on without replicas. nodes_each: nodes of a replica, less than one too. fewest: replicas that must be left.

    rejoin: s that training stops when a replica comes back.
    """

    replicas: int
    nodes_each: float
    fewest: int
    rejoin: float

    def missing(self, nodes: int) -> int:
        """Replicas that cannot run without so many nodes: the nodes that are left close ranks."""
        return ceil(nodes / self.nodes_each - 1e-9)


@dataclass(frozen=True, slots=True)
class Soft:
    """Failures that training survives. found: s until a slow GPU or a corruption is noticed; flap_time: s of a flap."""

    slow_found: Spread
    sdc_found: Spread
    flap_time: float


@dataclass(frozen=True)
class Job:
    """One job on one cluster. paces: s of an iteration by state. variation: standard deviation of GPUs' speeds."""

    iterations: int
    gpus: int
    failures: Failures
    checkpoint: Checkpointing
    recovery: Recovery
    spares: Spares
    soft: Soft
    elastic: Elastic | None = None
    variation: float = 0.0
    paces: Mapping[State, float] = field(default_factory=dict)

    @property
    def pace(self) -> float:
        return self.paces[HEALTHY]

    @property
    def interval(self) -> float:
        """Seconds of work between two saves."""
        return min(self.checkpoint.every, self.iterations) * self.pace

    @property
    def ideal(self) -> float:
        """Seconds of the job if nothing failed and nothing were saved."""
        return self.iterations * self.pace
