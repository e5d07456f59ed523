"""Links that hold nobody back, left out: what is played is only where flows can contend."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.links import KIND
from llmsim.cluster.traffic import Flows, Traffic
from llmsim.program.folding.refinement import mix

_FABRIC = ("spine", "core", "router", "global")  # link kinds above the NICs


def without_wider(
    traffic: Mapping[str, Traffic], cluster: Cluster, changing: np.ndarray, taken: np.ndarray
) -> dict[str, Traffic]:
    """The traffic without those links that only carry what a narrower link carries too: the narrower fills first.

    changing: links whose bandwidth changes over time; taken: bytes/s of others on each link. Those links stay.
    """
    parts = [part for entry in traffic.values() for part in (entry.intra, entry.inter)]
    carried = np.zeros(len(cluster.links), dtype=np.uint64)  # of each link: a hash of its flows
    for number, part in enumerate(parts):
        shares = np.round(part.share * 2**20).astype(np.uint64)
        flow = mix(mix(part.rank.astype(np.uint64), 2 * number), 1) + mix(part.peer.astype(np.uint64), 2 * number + 1)
        np.add.at(carried, part.link, mix(flow ^ mix(shares, 2), 3))
    stays = (carried == 0) | (taken > 0)
    stays[changing] = True
    order = np.lexsort((cluster.links.bandwidth, carried))
    order = order[~stays[order]]
    stays[order[np.diff(carried[order], prepend=np.uint64(0)) != 0]] = True
    return _without(traffic, ~stays)


def _without(traffic: Mapping[str, Traffic], drop: np.ndarray) -> dict[str, Traffic]:
    def keep(part: Flows) -> Flows:
        stay = ~drop[part.link]
        return Flows(part.rank[stay], part.peer[stay], part.link[stay], part.share[stay])

    return {kind: replace(entry, intra=keep(entry.intra), inter=keep(entry.inter)) for kind, entry in traffic.items()}


def without_slack(
    traffic: Mapping[str, Traffic], cluster: Cluster, gpu: np.ndarray, taken: np.ndarray
) -> dict[str, Traffic]:
    """The traffic without those fabric links that can never fill; taken: bytes/s of others on each link.

    A link above the NICs that has room for the full rate of every GPU whose flows cross it limits nothing; leaving it
    out is exact, and keeps ranks alike that differ only in where their non-blocking routes run.
    """
    links, rate = cluster.links, cluster.topology.port_bandwidth
    if not rate:  # a graph without NICs says nothing about what a GPU can send
        return dict(traffic)
    fabric = np.isin(links.kind, [KIND[kind] for kind in _FABRIC])
    parts = [part for entry in traffic.values() for part in (entry.intra, entry.inter)]
    link = np.concatenate([part.link for part in parts])
    share = np.concatenate([part.share for part in parts])
    number = np.repeat(np.arange(len(parts)), [len(part.link) for part in parts])
    above = fabric[link]
    link, share, number = link[above], share[above], number[above]
    # No link carries more than its senders' NICs give, nor more than its receivers' NICs take.
    ends = [
        gpu[np.concatenate([getattr(part, end) for part in parts])[above]] if len(link) else link
        for end in ("rank", "peer")
    ]
    asked = np.minimum(*(_most_asked(link, cluster, end, number, share) for end in ends))
    return _without(traffic, fabric & (asked * rate + taken <= links.bandwidth * (1 + 1e-9)))


def _most_asked(link: np.ndarray, cluster: Cluster, gpu: np.ndarray, kind: np.ndarray, share: np.ndarray) -> np.ndarray:
    """float[links]: over the NICs at one end of its flows, the sum of the largest share that each NIC sends there."""
    links = len(cluster.links)
    if len(link) == 0:
        return np.zeros(links)
    gpus, ports = cluster.gpus, cluster.nodes * cluster.topology.nic_ports
    each, where = np.unique((kind * links + link) * gpus + gpu, return_inverse=True)
    together = np.bincount(where, weights=share)  # one kind's flows of a GPU run at once
    gpu = each % gpus
    port = cluster.node_of(gpu) * cluster.topology.nic_ports + cluster.nic_of(gpu)
    pair = each // gpus % links * ports + port
    order = np.argsort(pair, kind="stable")
    first = np.nonzero(np.diff(pair[order], prepend=-1))[0]
    largest = np.maximum.reduceat(together[order], first)
    return np.bincount(pair[order][first] // ports, weights=largest, minlength=links)


def crossed_by_several(traffic: Mapping[str, Traffic], ranks: int, links: int) -> np.ndarray:
    """Links that ranks of several teams cross: ranks that meet in these groups, directly or through others."""
    chosen = list(traffic.values())
    team, before = np.arange(ranks), None
    while before is None or (team != before).any():
        before = team.copy()
        for entry in (entry for entry in chosen if not entry.alone):
            lowest = team[entry.members].min(axis=1)
            np.minimum.at(team, entry.members.ravel(), np.repeat(lowest, entry.members.shape[1]))
    parts = [part for entry in chosen for part in (entry.intra, entry.inter)]
    pairs = np.unique(np.concatenate([part.link * ranks + team[part.rank] for part in parts] or [np.empty(0, int)]))
    return np.flatnonzero(np.bincount(pairs // ranks, minlength=links) > 1)
