"""A collective as the engine plays it: phases of equal steps, the same for every member."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Phase:
    """`repeat` equal steps; each takes `latency + seconds` when nothing else uses its links.

    `seconds` is the transfer at full rate, which contention stretches; `latency` is fixed. Bytes are per member and
    step, averaged over the members of the group.
    """

    repeat: int
    latency: float  # s
    seconds: float  # s; 0 when the step is latency only
    intra_bytes: float  # sent over the member's scale-up port
    inter_bytes: float  # sent into the network through its NICs
    sms: int = 0  # SMs that the kernel occupies
    hbm_bytes: float = 0.0  # read plus written


@dataclass(frozen=True)
class CollectivePlan:
    """What one collective does: the algorithm NCCL would choose and the phases that it takes.

    `size` is in bytes as nccl-tests counts it (see `llmsim.model.work.Communication`).
    """

    operation: str
    algorithm: str
    protocol: str
    channels: int
    size: float
    ranks: int
    phases: tuple[Phase, ...]

    @cached_property
    def seconds(self) -> float:
        return sum(p.repeat * (p.latency + p.seconds) for p in self.phases)

    @property
    def algbw(self) -> float:
        """size / time, bytes/s; 0 when the collective takes no time."""
        return self.size / self.seconds if self.seconds else 0.0

    @property
    def busbw(self) -> float:
        """algbw times the share of the size that must cross each port (nccl-tests PERFORMANCE.md), bytes/s."""
        return self.algbw * bus_factor(self.operation, self.ranks)


def bus_factor(operation: str, ranks: int) -> float:
    """Bytes that each member must send at least, over the size: nccl-tests PERFORMANCE.md."""
    if operation == "all_reduce":
        return 2 * (ranks - 1) / ranks
    if operation in ("all_gather", "reduce_scatter", "all_to_all"):
        return (ranks - 1) / ranks
    return 1.0


def steps_of(
    steps: int,
    crossings: int,
    block: float,
    bandwidth: float,
    hop: float,
    crossing: float,
    inter_share: float = 0.0,
    sms: int = 0,
) -> tuple[Phase, ...]:
    """`steps` steps of `block` bytes at `bandwidth` bytes/s, of which `crossings` have a network hop's latency.

    hop, crossing: seconds of latency of a step inside a node and between nodes. `inter_share`: the share of the
    members' sends that leave the node. Sum: steps x (latency + block/bandwidth).
    """
    each = (block / bandwidth, block * (1 - inter_share), block * inter_share, sms)
    counts = ((steps - crossings, hop), (crossings, crossing))
    return tuple(Phase(count, latency, *each) for count, latency in counts if count)


def pipelined(
    hops: int,
    crossings: int,
    hop: float,
    crossing: float,
    seconds: float,
    intra: float,
    inter: float,
    sms: int = 0,
) -> tuple[Phase, ...]:
    """Chunks flowing through `hops` + `crossings` steps: latency once per step, the transfer spread over them.

    seconds, intra, inter: totals of the transfer and of one member's bytes.
    """
    steps = hops + crossings
    each = (seconds / steps, intra / steps, inter / steps, sms)
    counts = ((hops, hop), (crossings, crossing))
    return tuple(Phase(count, latency, *each) for count, latency in counts if count)
