"""Steps of offloading as activities on the host: copies over PCIe, updates on CPUs, reads and writes of disks."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from llmsim.catalogue.offload_constants import offload_shares
from llmsim.engine.plan import Part
from llmsim.model.work import HostCopy, HostUpdate


class Place(Protocol):
    """What one way of a class loads: (resource, flows of the class that cross it), and its latency (s)."""

    intra: tuple[tuple[int, float], ...]
    latency: float


def host_part(work: HostCopy | HostUpdate, places: Mapping[str, Place], capacities: Sequence[float]) -> Part:
    """What a copy or an update of one class costs when nothing contends. places: by way, what it loads.

    A link is full when copies reach the share of it that copies ever reach, hence their demand is the whole of it.
    """
    if isinstance(work, HostUpdate):
        return _update(work, places, capacities)
    place = places[work.way]
    rate = _alone(place, capacities)
    return Part(1, place.latency, work.size / (work.share * rate), _demands(place, rate))


def _update(work: HostUpdate, places: Mapping[str, Place], capacities: Sequence[float]) -> Part:
    """Reading, updating and writing are pipelined: the slowest sets the time, each uses its resource for its part."""
    shares = offload_shares()
    stages = [("cpu_memory", work.memory / shares.cpu_update)]
    if work.read:
        stages += [("nvme_read", work.read / shares.nvme), ("nvme_write", work.written / shares.nvme)]
    rates = {way: _alone(places[way], capacities) for way, _ in stages}
    seconds = max(size / rates[way] for way, size in stages)
    demands: dict[int, float] = {}
    for way, size in stages:
        for resource, amount in _demands(places[way], size / seconds):
            demands[resource] = demands.get(resource, 0.0) + amount
    return Part(1, 0.0, seconds, tuple(demands.items()))


def _alone(place: Place, capacities: Sequence[float]) -> float:
    """bytes/s of one flow. Links that are down for now are no measure: the engine stops what needs them."""
    return min((capacities[resource] for resource, _ in place.intra if capacities[resource] > 0), default=1.0)


def _demands(place: Place, rate: float) -> tuple[tuple[int, float], ...]:
    return tuple((resource, flows * rate) for resource, flows in place.intra)
