"""Which traffic crosses what: bytes of one iteration on every link, by group, whether ranks are folded or not."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmsim.cluster.links import KINDS
from llmsim.engine.player import Played
from llmsim.program.program import Program


def link_bytes(program: Program, played: Played) -> dict[str, np.ndarray]:
    """By group (tp, dp, …; pp in both directions): float[links], bytes of the last iteration over each link."""
    sent = _sent(program, played)
    links, of_rank = len(program.cluster.links), program.classes.of_rank
    found: dict[str, np.ndarray] = {}
    for kind, (inside, outside) in sent.items():
        entry = program.traffic[kind]
        total = found.setdefault(kind.split("_")[0], np.zeros(links))
        for flows, by_class in ((entry.intra, inside), (entry.inter, outside)):
            total += np.bincount(flows.link, weights=flows.share * by_class[of_rank[flows.rank]], minlength=links)
    return found


def _sent(program: Program, played: Played) -> dict[str, np.ndarray]:
    """By kind of group: float[2, classes], bytes that a rank of each class sends inside its node and outside."""
    labels, count = program.labels, len(program.classes.count)
    last = max(tag.iteration for tag in program.tags)
    is_last = np.array([tag.iteration == last for tag in program.tags])
    found: dict[str, np.ndarray] = {}
    for lane, rows in zip(program.plan.lanes, played.rows):
        own = rows[is_last[rows[:, 1].astype(int)], 0].astype(int)
        times = np.bincount(own, minlength=len(labels))
        for label in np.flatnonzero(times).tolist():
            for kind, inside, outside in labels[label].sent:
                total = found.setdefault(kind, np.zeros((2, count)))
                total[:, lane.owner] += times[label] * inside, times[label] * outside
    return found


def network_metrics(program: Program, played: Played, iteration_s: float) -> dict[str, Any]:
    """`bytes`: by kind of link and group, summed over links and both directions of each; `hottest`: of each kind of
    link the one that is used most, with its share of what it could carry in the iteration and whose bytes they are."""
    carried = {group: total for group, total in link_bytes(program, played).items() if total.any()}
    cluster = program.cluster
    links, everything = cluster.links, sum(carried.values(), np.zeros(len(cluster.links)))
    by_kind: dict[str, dict[str, float]] = {}
    hottest = []
    for code, kind in enumerate(KINDS):
        own = np.flatnonzero((links.kind == code) & (everything > 0))
        if len(own):
            by_kind[kind] = {group: float(total[own].sum()) for group, total in carried.items() if total[own].any()}
            used = everything[own] / np.maximum(links.bandwidth[own], 1e-300) / iteration_s
            hottest.append(_one(cluster.link_name(int(own[used.argmax()])), kind, float(used.max()), carried,
                                int(own[used.argmax()])))  # fmt: skip
    return {"bytes": by_kind, "hottest": sorted(hottest, key=lambda link: -link["utilization"])}


def _one(name: str, kind: str, used: float, carried: Mapping[str, np.ndarray], link: int) -> dict[str, Any]:
    groups = {group: float(total[link]) for group, total in carried.items() if total[link]}
    return {"link": name, "kind": kind, "utilization": used, "bytes": groups}
