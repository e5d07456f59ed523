"""The input pipeline of a rank: micro-batches are read from storage and prepared by workers ahead of their forward.

One `host` lane for each class that runs the first stage. The workers of a rank act as one: a fixed cost of one
micro-batch is shared by them, since they work on different micro-batches at once, and they ask for no more than
`depth` micro-batches that the forward passes have not yet begun.
"""

from dataclasses import dataclass, field

from llmsim.engine.plan import Fragment, Item, Op, Part, Plan
from llmsim.program.passes.labels import Label, Numbered
from llmsim.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Loading:
    """What one rank loads for one micro-batch. The ranks of a replica's first stage share the reading of it.

    bytes: this rank's share; rate: bytes/s that it can receive; latency: s of one read by one worker; prepare: s of
    one worker for the whole micro-batch; workers: of the replica; depth: micro-batches that may be loaded or under way
    before they are asked for.
    """

    bytes: float
    rate: float
    latency: float
    prepare: float
    workers: int
    depth: int

    def seconds(self) -> float:
        """Of one micro-batch when nothing else is read."""
        return self.bytes / self.rate + (self.latency + self.prepare) / self.workers


@dataclass(slots=True)
class Loader:
    """Lays out the `host` lane of one class. `storage` and `cpu` are resources; `ranks` act in step in the class."""

    plan: Plan
    labels: Numbered
    loading: Loading
    storage: int
    cpu: int
    ranks: int
    asked: list[int] = field(default_factory=list)

    def place(self, lanes: dict[str, list[Item]], lane: str, tag: int) -> int:
        """Append the load of the next forward on `lane`; the signal that the forward waits for."""
        asked, loaded = self.plan.new_signal(), self.plan.new_signal()
        self.asked.append(asked)
        earlier = len(self.asked) - 1 - self.loading.depth
        waits = (self.asked[earlier],) if earlier >= 0 else ()
        lanes.setdefault("host", []).append(Item(Fragment(self._ops()), tag, 0, waits, ((loaded, 0.0),)))
        lanes.setdefault(lane, []).append(Item(Fragment(()), tag, 0, (), ((asked, 0.0),)))
        return loaded

    def _ops(self) -> tuple[Op, ...]:
        work = self.loading
        read = Label("read data", "host", "host", "forward", bytes=work.bytes)
        prepare = Label("prepare data", "host", "host", "forward", bytes=work.bytes)
        drawn = work.rate * self.ranks
        # All rise at the pace 1, so that shares are fair by rank: a class of n ranks draws n times as much.
        demands = ((self.storage, drawn), (self.cpu, 1.0))
        reading = Part(1, work.latency / work.workers, work.bytes / work.rate, demands)
        preparing = Part(1, 0.0, work.prepare / work.workers, ((self.cpu, 1.0),))
        return Op(self.labels.number(read), (reading,)), Op(self.labels.number(prepare), (preparing,))


def loading_of(scenario: Scenario) -> Loading | None:
    """The input pipeline, None where the scenario names no storage and data are always there."""
    data, training, resolved = scenario.data, scenario.training, scenario.resolve()
    if data.storage is None:
        return None
    layout, topology = resolved.layout, resolved.topology
    readers = layout.tp * layout.cp
    tokens = training.micro_batch * training.seq_len
    rate = storage_bandwidth(scenario)
    if data.storage.kind == "nvme":
        rate = topology.node.nvme.read_bandwidth
    elif topology.scale_out_bandwidth:
        rate = min(rate, topology.scale_out_bandwidth)
    return Loading(
        bytes=tokens * data.bytes_per_token / readers,
        rate=rate / readers,
        latency=data.storage.latency,
        prepare=tokens / data.worker_rate if data.worker_rate else 0.0,
        workers=data.workers,
        depth=data.workers * data.prefetch,
    )


def storage_bandwidth(scenario: Scenario) -> float:
    """bytes/s that all nodes read together."""
    storage, resolved = scenario.data.storage, scenario.resolve()
    if storage.bandwidth is not None:
        return storage.bandwidth
    if storage.kind == "nvme":
        return resolved.topology.node.nvme.read_bandwidth * resolved.nodes
    return resolved.topology.storage.read_bandwidth
