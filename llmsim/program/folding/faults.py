"""Slow GPUs and links, links that are down, loaders that stall: marks that keep ranks apart, capacities over time.

A fault from the start to the end of the run is part of the cluster; one with a moment changes a capacity then.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.engine.plan import CapacityChange
from llmsim.errors import ScenarioError

_DOWN = {"gpu_down": "GPU", "node_down": "node"}


@dataclass(frozen=True, slots=True)
class Window:
    """A capacity is `factor` of itself from `start` to `until` (s; None: to the end)."""

    factor: float
    start: float
    until: float | None


@dataclass(frozen=True)
class FaultPlan:
    """Faults by what they touch. Links that are slow throughout are already so in the cluster."""

    gpus: dict[int, tuple[Window, ...]]
    links: dict[int, tuple[Window, ...]]
    loaders: dict[int, tuple[Window, ...]] = field(default_factory=dict)  # by the GPU whose data is late

    def marks(self, gpu: np.ndarray) -> np.ndarray:
        """int[ranks]: 0 for a healthy GPU, else equal numbers for equal faults."""
        size = int(gpu.max()) + 1
        slow, late = _numbered(self.gpus, size), _numbered(self.loaders, size)
        return (slow + (int(slow.max()) + 1) * late)[gpu]

    def link_marks(self, links: int) -> np.ndarray:
        """int[links]: as `marks`, of faults that come or go."""
        return _numbered(self.links, links)


def _numbered(windows: dict[int, tuple[Window, ...]], size: int) -> np.ndarray:
    marks = np.zeros(size, dtype=np.int64)
    known: dict[tuple[Window, ...], int] = {}
    for place in sorted(windows):
        marks[place] = known.setdefault(windows[place], len(known) + 1)
    return marks


def plan_faults(faults: Iterable, cluster: Cluster) -> tuple[FaultPlan, Cluster]:
    """The faults of a scenario, and the cluster with those links that are slow or down throughout.

    Raises `ScenarioError` for a GPU or node that is down: the collectives of the others wait for it without end.
    """
    gpus: dict[int, tuple[Window, ...]] = {}
    links: dict[int, tuple[Window, ...]] = {}
    loaders: dict[int, tuple[Window, ...]] = {}
    throughout: dict[int, float] = {}
    for position, fault in enumerate(faults):
        if fault.kind in _DOWN:
            raise ScenarioError(
                f"faults.{position}.kind: an iteration with a dead {_DOWN[fault.kind]} never ends; `llmsim goodput` "
                "plays what a job does about it, or leave the fault out"
            )
        stopped = fault.kind in ("link_down", "loader_stall") and fault.factor is None
        factor = 0.0 if stopped or fault.kind == "link_down" else fault.factor
        window = Window(factor, fault.start, fault.until)
        if fault.kind == "slow_gpu":
            place = cluster.find_gpu(fault.gpu)
            gpus[place] = (*gpus.get(place, ()), window)
        elif fault.kind in ("slow_link", "link_down"):
            for link in cluster.find_link(fault.link).tolist():
                if window.start == 0 and window.until is None:
                    throughout[link] = throughout.get(link, 1.0) * factor
                else:
                    links[link] = (*links.get(link, ()), window)
        elif fault.kind == "loader_stall":
            per_node = cluster.gpus_per_node
            first = 0 if fault.node is None else int(fault.node.removeprefix("node")) * per_node
            for place in range(first, cluster.nodes * per_node if fault.node is None else first + per_node):
                loaders[place] = (*loaders.get(place, ()), window)
    for link in [link for link, windows in links.items() if not changes(windows, link, 1.0)[0]]:
        del links[link]
        throughout[link] = 0.0  # one fault begins before the other ends
    return FaultPlan(gpus, links, loaders), cluster.with_factors(throughout) if throughout else cluster


def changes(windows: tuple[Window, ...], resource: int, full: float) -> tuple[float, list[CapacityChange]]:
    """The most that a resource ever has, and how its capacity changes; overlapping windows multiply.

    Ops are laid out for the most, so that they go on at full rate when a fault that was there from the start ends.
    """
    moments = sorted({0.0, *(w.start for w in windows), *(w.until for w in windows if w.until is not None)})

    def capacity(moment: float) -> float:
        result = full
        for window in windows:
            if window.start <= moment and (window.until is None or moment < window.until):
                result *= window.factor
        return result

    most = max(capacity(moment) for moment in moments)
    later = [CapacityChange(moment, resource, capacity(moment)) for moment in moments]
    return most, later if later[0].capacity < most else later[1:]
