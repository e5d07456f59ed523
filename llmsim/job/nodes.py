"""Which places have a node: failures that take nodes go in, spares that stand in and nodes that come back come out."""

from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from llmsim.engine.clock import Clock
from llmsim.job.failures import TAKES_NODE, Failure
from llmsim.job.policy import Job

SLIGHTEST = 1e-6  # s; what is nearer than that is now: moments are rounded


@dataclass(frozen=True, slots=True)
class Back:
    """News: nodes that the job lacks come back from repair."""


class Nodes:
    """spares: that stand by. holes: places without a node, first come first filled. repairs: a heap of (s, nodes)."""

    def __init__(self, job: Job, clock: Clock) -> None:
        self._job, self._clock = job, clock
        self.spares = job.spares.nodes
        self.holes: list[int] = []
        self.repairs: list[tuple[float, int]] = []

    def take(self, cause: str, failure: Failure) -> float:
        """Nodes that the failure takes leave; spares stand in where there are any. Seconds until they do."""
        if cause not in TAKES_NODE or failure.node < 0:
            return 0.0
        spares, nodes = self._job.spares, self._job.failures.nodes
        places, repair = [failure.node], spares.repair
        if cause == "switch":
            first = failure.node // spares.behind_switch * spares.behind_switch
            places = [p for p in range(first, min(nodes, first + spares.behind_switch)) if p not in self.holes]
            repair = spares.switch_repair
        seconds = failure.repair if failure.repair is not None else repair and repair.at(failure.marks[0])
        if seconds is not None and seconds < inf:
            heappush(self.repairs, (self._clock.now + seconds, len(places)))
        self.holes += places
        return spares.swap if self.fill() else 0.0

    def fill(self) -> bool:
        """Spares stand in for missing nodes, as far as there are any; else it hears of the next that comes back."""
        now = self._clock.now
        while self.repairs and self.repairs[0][0] <= now + SLIGHTEST:
            self.spares += heappop(self.repairs)[1]
        filled = min(self.spares, len(self.holes))
        self.spares -= filled
        del self.holes[:filled]
        if self.holes and self.repairs:
            self._clock.announce(self.repairs[0][0], Back())
        return filled > 0

    def missing_replicas(self) -> int:
        """Of an elastic job."""
        elastic = self._job.elastic
        return elastic.missing(len(self.holes)) if elastic and self.holes else 0

    def enough(self) -> bool:
        """Whether the job can go on with the nodes that are there."""
        if not self.holes:
            return True
        elastic = self._job.elastic
        return elastic is not None and elastic.replicas - self.missing_replicas() >= elastic.fewest
