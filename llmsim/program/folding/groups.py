"""The groups of classes: for each group of ranks, which classes meet in it and what it shares of links."""

from collections.abc import Mapping

import numpy as np

from llmsim.catalogue.collective_constants import Achieved
from llmsim.cluster.cluster import Cluster
from llmsim.cluster.groups import describe_group
from llmsim.cluster.traffic import Flows, Traffic
from llmsim.program.folding.classes import RankClasses
from llmsim.program.passes.op_costs import ClassGroup


def class_groups(
    classes: RankClasses, traffic: Mapping[str, Traffic], cluster: Cluster, gpu: np.ndarray, achieved: Achieved
) -> list[dict[str, ClassGroup]]:
    """For each class, each kind of group it is in: the group's numbers and the load of its traffic on link classes.

    achieved: what collectives achieve.
    """
    result: list[dict[str, ClassGroup]] = [{} for _ in classes.count]
    for kind, entry in traffic.items():
        intra = _loads(classes, entry.intra)
        inter = _loads(classes, entry.inter)
        if entry.alone:
            sender = np.full(len(classes.of_rank), -1)
            sender[entry.members[:, 0]] = np.arange(len(entry.members))
        for number, rank in enumerate(classes.representative):
            if entry.alone:
                row = sender[rank]
                if row < 0:
                    continue
                members: tuple[int, ...] = (number,)
            else:
                row = entry.group_of[rank] if rank < len(entry.group_of) else -1
                if row < 0:
                    continue
                members = tuple(np.unique(classes.of_rank[entry.members[row]]).tolist())
            result[number][kind] = ClassGroup(
                kind,
                describe_group(entry, cluster, gpu, row, achieved),
                members,
                _sum(intra, members),
                _sum(inter, members),
                entry.latency,
            )
    return result


def _loads(classes: RankClasses, flows: Flows) -> dict[int, list[tuple[int, float]]]:
    """By class: (resource, flows of the class that cross the representative link of the resource)."""
    link_class = classes.of_link[flows.link]
    shown = flows.link == classes.link_representative[link_class]
    owner, target, share = classes.of_rank[flows.rank[shown]], link_class[shown], flows.share[shown]
    result: dict[int, list[tuple[int, float]]] = {}
    if len(owner) == 0:
        return result
    keys, inverse = np.unique(np.column_stack((owner, target)), axis=0, return_inverse=True)
    totals = np.bincount(inverse.ravel(), weights=share)
    for (number, link), total in zip(keys.tolist(), totals.tolist()):
        result.setdefault(number, []).append((classes.link_resource(link), total))
    return result


def _sum(loads: dict[int, list[tuple[int, float]]], members: tuple[int, ...]) -> tuple[tuple[int, float], ...]:
    total: dict[int, float] = {}
    for number in members:
        for resource, flows in loads.get(number, ()):
            total[resource] = total.get(resource, 0.0) + flows
    return tuple(sorted(total.items()))
