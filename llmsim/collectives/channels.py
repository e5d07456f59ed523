"""How many channels NCCL lays over a group's links, and how fast: its graph search in closed form.

A ring channel crosses the NVLink port of each member once and one NIC of each node once, so at speed s there fit
min(NVLink rate / s, NICs x floor(NIC rate / s)) channels; the search keeps the best channels x speed (search.cc).
"""

from dataclasses import dataclass
from functools import lru_cache
from math import floor

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives.group import Group


@dataclass(frozen=True, slots=True)
class Channels:
    """`count` channels of `speed` bytes/s each; `intra_speed` is what a channel may use inside a node."""

    count: int
    speed: float
    intra_speed: float

    @property
    def total(self) -> float:
        return self.count * self.speed


def scale_up_rate(group: Group) -> float:
    """The one-direction rate of a member's scale-up port as NCCL counts it, bytes/s."""
    nccl = collective_constants()["nccl"]
    if group.scale_up in ("nvswitch", "cube-mesh") and group.nvlinks:
        return group.nvlinks * nccl["nvlink_speed"][group.architecture]
    return nccl["pcie_share"] * group.pcie_bandwidth


def _speeds(group: Group, place: str) -> list[float]:
    table = collective_constants()["nccl"]["speeds"][place]
    return table.get(group.architecture, table["old"])


def nic_ports(group: Group) -> tuple[float, float]:
    """NICs and their rate as the search sees them: plugins bundle the NICs of one GPU into one of their sum."""
    bundle = max(1.0, group.nics / group.per_node)
    return group.nics / bundle, group.nic_bandwidth * bundle


@lru_cache(maxsize=4096)
def search_channels(group: Group, pattern: str) -> Channels:
    """The channels of `pattern` ring, tree or nvls."""
    nccl = collective_constants()["nccl"]
    port = scale_up_rate(group)
    if pattern != "ring" and group.per_node > 1:
        port *= group.per_node / (group.per_node - 1)
    if pattern == "nvls":
        return _nvls(group, port, nccl)
    nics, nic_rate = nic_ports(group)
    best, first = (0, 0.0), 0.0
    for speed in _speeds(group, "inter" if group.nodes > 1 else "intra"):
        if first and speed < nccl["keep_speed"] * first:
            break
        count = nccl["search_channels"]
        if group.per_node > 1:
            count = min(count, floor(port / speed + 1e-9))
        if group.nodes > 1:
            count = min(count, floor(nics * floor(nic_rate / speed + 1e-9) + 1e-9))
        if count and not first:
            first = speed
        total, found = count * speed, best[0] * best[1]
        # On a tie the search inside a node takes more, slower channels; between nodes, one channel per NIC.
        if total > found or (total == found and count and group.nodes == 1):
            best = (count, speed)
    if not best[0]:  # slower than the slowest speed of the list: one channel at what there is
        best = (1, min(port, nics * nic_rate) if group.nodes > 1 else port)
    count, speed = best
    intra = speed
    if pattern == "tree" and group.nodes == 2 and group.scale_up == "nvswitch":
        intra = min(2 * speed, port / count)
    return Channels(count, speed, intra)


def _nvls(group: Group, port: float, nccl: dict) -> Channels:
    """One head per member, the multicast port of each shared by all heads."""
    count = min(32, group.per_node)
    speeds = _speeds(group, "intra")
    intra = next((s for s in speeds if count * s <= port), port / count)
    if group.nodes == 1:
        return Channels(count, intra, intra)
    nics, nic_rate = nic_ports(group)
    speed = min(intra, nics * nic_rate / count)
    return Channels(count, speed, intra)


def device_channels(group: Group, pattern: str = "ring") -> int:
    """Channels that kernels really use: the search's twice (both directions; both trees), at most 64."""
    nccl = collective_constants()["nccl"]
    return min(2 * search_channels(group, pattern).count, nccl["most_channels"])


def used_channels(size: float, channels: int, protocol: str, ranks: int, ring: bool) -> int:
    """Channels left after NCCL sheds those that a message is too small for (enqueue.cc)."""
    return floor(filled_channels(size, channels, protocol, ranks, ring))


def filled_channels(size: float, channels: int, protocol: str, ranks: int, ring: bool) -> float:
    """The same without rounding down, so that what depends on it does not jump: at least 1."""
    nccl = collective_constants()["nccl"]
    per_channel = nccl["threads"][protocol] * nccl["bytes_per_thread"][protocol]
    if ring and protocol == "LL":
        per_channel *= ranks
    return max(1.0, min(channels, size / per_channel))
