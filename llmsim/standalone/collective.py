"""A collective played alone on a cluster, through the same engine as everything else: what nccl-tests would print."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.cluster_of import cluster_of
from llmsim.cluster.groups import describe_group
from llmsim.cluster.links import KINDS
from llmsim.cluster.reading.load import load_topology
from llmsim.cluster.topology import Topology
from llmsim.cluster.traffic import Flows, Traffic, exchange_traffic, ring_traffic
from llmsim.collectives import CollectivePlan, Group, bus_factor, plan_collective
from llmsim.engine.plan import Fragment, Item, Lane, Op, Part, Plan
from llmsim.engine.player import play
from llmsim.engine.rates import feasible
from llmsim.errors import CollectiveError
from llmsim.trace import trace_frame
from llmsim.units import parse_quantity

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CollectiveResult:
    """What came out: sizes in bytes as nccl-tests counts them, `time_s` in s.

    played: (steps, 4) of phase, tag, start, end. links: by kind of link the bytes over all of them (`bytes`), over the
    busiest one (`busiest_bytes`), and how many carry any (`links`).
    """

    plan: CollectivePlan
    time_s: float
    events: int
    played: np.ndarray = field(repr=False)
    links: dict[str, dict[str, float]] = field(repr=False)

    @property
    def operation(self) -> str:
        return self.plan.operation

    @property
    def size(self) -> float:
        return self.plan.size

    @property
    def ranks(self) -> int:
        return self.plan.ranks

    @property
    def algorithm(self) -> str:
        return self.plan.algorithm

    @property
    def protocol(self) -> str:
        return self.plan.protocol

    @property
    def channels(self) -> int:
        return self.plan.channels

    @property
    def algbw(self) -> float:
        """size over time, bytes/s."""
        return self.size / self.time_s if self.time_s else 0.0

    @property
    def busbw(self) -> float:
        """algbw times the share of the size that must cross each port (nccl-tests PERFORMANCE.md), bytes/s."""
        return self.algbw * bus_factor(self.operation, self.ranks)

    @property
    def row(self) -> dict:
        """The row of nccl-tests' table as plain values."""
        names = ("operation", "size", "time_s", "algbw", "busbw", "algorithm", "protocol", "channels")
        return {name: getattr(self, name) for name in names} | {"steps": len(self.played)}

    @cached_property
    def trace(self) -> "pd.DataFrame":
        """One row a step (`llmsim.trace.COLUMNS`): rank 0 stands for all, bytes are what a member sends in the step."""
        about = {"rank": 0, "ranks": self.ranks, "stream": "collective", "group": "world", "phase": ""}
        sent = [phase.intra_bytes + phase.inter_bytes for phase in self.plan.phases]
        moves = [phase.seconds > 0 for phase in self.plan.phases]
        return trace_frame(
            [
                about
                | {"kind": "p2p" if self.operation == "send_recv" else "collective", "bytes": sent[int(phase)]}
                | {"name": f"{self.algorithm} step" if moves[int(phase)] else "start", "start_s": start, "end_s": end}
                for phase, _, start, end in self.played.tolist()
            ]
        )


@dataclass(frozen=True)
class Communicator:
    """All GPUs of a cluster as one group. Routes are found once, however many operations run.

    routing: `ideal` spreads traffic evenly over parallel paths, `ecmp-hash` hashes each flow (seeded) onto one.
    """

    cluster: Cluster
    routing: str = "ideal"
    seed: int = 0

    @cached_property
    def group(self) -> Group:
        return describe_group(self._ring, self.cluster, self._gpus, 0)

    @cached_property
    def _gpus(self) -> np.ndarray:
        return np.arange(self.cluster.gpus)

    @property
    def _routing(self) -> dict:
        return {"routing": self.routing, "seed": self.seed}

    @cached_property
    def _ring(self) -> Traffic:
        return ring_traffic("world", self._gpus[None, :], self.cluster, self._gpus, self._routing)

    @cached_property
    def _loads(self) -> dict[str, "_Load"]:
        return {}

    def _load(self, algorithm: str) -> "_Load":
        pattern = algorithm if algorithm in ("p2p", "p2p_direct") else "ring"
        if pattern not in self._loads:
            traffic = self._ring
            if pattern != "ring":
                traffic = exchange_traffic(
                    "world", self._gpus[None, :], self.cluster, self._gpus, self._routing, pattern == "p2p"
                )
            self._loads[pattern] = _Load(traffic, self.cluster)
        return self._loads[pattern]

    def run(
        self, operation: str, size: float, algorithm: str = "auto", protocol: str = "auto", steps: bool = True
    ) -> CollectiveResult:
        """Play one operation of `size` bytes; steps: each step is an event of its own, else equal steps are merged."""
        plan = plan_collective(operation, float(size), self.group, algorithm, protocol)
        load = self._load(plan.algorithm if operation == "all_to_all" else "ring")
        engine = Plan(capacities=load.capacities)
        ops = []
        for number, phase in enumerate(plan.phases):
            part = feasible(Part(1, phase.latency, phase.seconds, load.demands(phase)), engine.capacities)
            if steps:
                ops += [Op(number, (part,))] * phase.repeat
            else:
                ops.append(Op(number, (part._replace(repeat=phase.repeat),)))
        engine.lanes.append(Lane(0, "collective", [Item(Fragment(tuple(ops)), 0)]))
        played = play(engine, steps=steps)
        intra = sum(phase.repeat * phase.intra_bytes for phase in plan.phases)
        inter = sum(phase.repeat * phase.inter_bytes for phase in plan.phases)
        return CollectiveResult(plan, played.end, played.events, played.rows[0], load.by_kind(intra, inter))


class _Load:
    """How many members' flows cross each link. Links that carry alike at alike bandwidth are one resource."""

    def __init__(self, traffic: Traffic, cluster: Cluster) -> None:
        self.links = cluster.links
        self.intra, self.inter = (self._flows(part) for part in (traffic.intra, traffic.inter))
        used = (self.intra > 0) | (self.inter > 0)
        table = np.column_stack((self.intra, self.inter, self.links.bandwidth))[used]
        self.distinct = np.unique(table, axis=0).tolist()
        self.capacities = [bandwidth for _, _, bandwidth in self.distinct]

    def _flows(self, part: Flows) -> np.ndarray:
        return np.bincount(part.link, weights=part.share, minlength=len(self.links))

    def demands(self, phase) -> tuple[tuple[int, float], ...]:
        """Bytes/s on each resource while the phase runs at its full rate."""
        if not phase.seconds:
            return ()
        rates = (phase.intra_bytes / phase.seconds, phase.inter_bytes / phase.seconds)
        amounts = (intra * rates[0] + inter * rates[1] for intra, inter, _ in self.distinct)
        return tuple((resource, amount) for resource, amount in enumerate(amounts) if amount > 0)

    def by_kind(self, intra: float, inter: float) -> dict[str, dict[str, float]]:
        """As `CollectiveResult.links`, when a member sends `intra` bytes inside its node and `inter` outside."""
        carried = self.intra * intra + self.inter * inter
        found = {}
        for code, name in enumerate(KINDS):
            own = carried[(self.links.kind == code) & (carried > 0)]
            if len(own):
                found[name] = {"bytes": float(own.sum()), "busiest_bytes": float(own.max()), "links": len(own)}
        return found


def communicator(
    topology: str | Topology,
    nodes: int = 1,
    gpus_per_node: int | None = None,
    *,
    routing: str = "ideal",
    seed: int = 0,
    slow_links: Mapping[str, float] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Communicator:
    """The group of all GPUs of `nodes` nodes of a topology (a name, a file, or a `Topology`).

    slow_links: what is left of the bandwidth of named links, such as {"node3.nic2": 0.5}; 0 is a link that is down.
    overrides: dotted keys of the topology file. Raises `CatalogueError` or `TopologyError`.
    """
    found = topology if isinstance(topology, Topology) else load_topology(topology, overrides)
    cluster = cluster_of(found, nodes, gpus_per_node)
    if slow_links:
        factors = {int(link): factor for name, factor in slow_links.items() for link in cluster.find_link(name)}
        cluster = cluster.with_factors(factors)
    return Communicator(cluster, routing, seed)


def simulate_collective(
    operation: str,
    size: float | str,
    topology: str | Topology,
    nodes: int = 1,
    gpus_per_node: int | None = None,
    algorithm: str = "auto",
    protocol: str = "auto",
    *,
    steps: bool = True,
    **cluster: object,
) -> CollectiveResult:
    """Play one collective over all GPUs of a cluster; `cluster`: further options of `communicator`.

    size: bytes (or a text such as `256 MiB`) as nccl-tests counts them: the buffer of an all-reduce or broadcast, the
    whole output of an all-gather, the whole input of a reduce-scatter or all-to-all. algorithm, protocol: `auto` is
    what NCCL's tuner would choose. Raises the `UserError` of whatever does not exist or fit together.
    """
    group = communicator(topology, nodes, gpus_per_node, **cluster)
    return group.run(operation, _bytes(size), algorithm, protocol, steps)


def sweep_sizes(
    group: Communicator, operation: str, sizes: Iterable[float], algorithm: str = "auto", protocol: str = "auto"
) -> list[CollectiveResult]:
    """The operation at each size, equal steps merged."""
    return [group.run(operation, size, algorithm, protocol, steps=False) for size in sizes]


def _bytes(size: float | str) -> float:
    value = parse_quantity(size, "bytes")
    if value < 0:
        raise CollectiveError(f"size: {size!r} is not a size; expected 0 or more bytes")
    return value
