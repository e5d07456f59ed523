"""Traffic of others on the same fabric: endless flows between nodes, which share links with the job's own."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.engine.plan import Part
from llmsim.engine.rates import COMMUNICATION_WEIGHT, pace_of
from llmsim.program.folding.classes import RankClasses


@dataclass(frozen=True)
class Background:
    """Entry k: flow number `flow[k]` asks for `rate[k]` bytes/s of link `link[k]`. `paces[i]`: of flow i."""

    flow: np.ndarray
    link: np.ndarray
    rate: np.ndarray
    paces: tuple[float, ...]

    def taken(self, links: int) -> np.ndarray:
        """float[links]: bytes/s asked for in all."""
        return np.bincount(self.link, weights=self.rate, minlength=links)

    def marks(self, links: int) -> np.ndarray:
        """int[links]: 0 for a link without such traffic, else equal numbers for links of the same flows and rates."""
        marks, known = np.zeros(links, dtype=np.int64), {}
        for link in np.unique(self.link).tolist():
            here = self.link == link
            carried = tuple(zip(self.flow[here].tolist(), self.rate[here].tolist()))
            marks[link] = known.setdefault(carried, len(known) + 1)
        return marks

    def parts(self, classes: RankClasses) -> list[Part]:
        """What the engine plays of each flow, on the resources of link classes."""
        shown = self.link == classes.link_representative[classes.of_link[self.link]]
        found = []
        for number in np.unique(self.flow).tolist():
            own = shown & (self.flow == number)
            resources = [classes.link_resource(link) for link in classes.of_link[self.link[own]].tolist()]
            demands = tuple(sorted(zip(resources, self.rate[own].tolist())))
            found.append(Part(1, 0.0, float("inf"), demands, self.paces[number]))
        return found


def plan_background(entries: Iterable, cluster: Cluster, routing: dict) -> Background:
    """Routes of a scenario's `background`: from a GPU to a GPU, or between the GPUs of two nodes pair by pair."""
    flows, links, rates, paces = [], [], [], []
    for number, entry in enumerate(entries):
        src, dst = cluster.gpus_at(entry.source), cluster.gpus_at(entry.target)
        routes = cluster.routes(src, dst, **routing)
        each = entry.rate / max(len(src), len(dst))
        paces.append(COMMUNICATION_WEIGHT * pace_of(each * routes.share / cluster.links.bandwidth[routes.link]))
        total = np.bincount(routes.link, weights=routes.share) * each
        used = np.flatnonzero(total)
        flows.append(np.full(len(used), number))
        links.append(used)
        rates.append(total[used])
    if not flows:
        none = np.empty(0, dtype=np.int64)
        return Background(none, none, np.empty(0), ())
    return Background(np.concatenate(flows), np.concatenate(links), np.concatenate(rates), tuple(paces))
