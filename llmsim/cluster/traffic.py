"""Where groups of ranks sit: which links their traffic crosses, and the few numbers that collectives need to know."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.host import host_routes


@dataclass(frozen=True)
class Flows:
    """Entry k: traffic of rank `rank[k]` to `peer[k]` crosses link `link[k]` with the share `share[k]` of its bytes."""

    rank: np.ndarray
    peer: np.ndarray
    link: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Traffic:
    """All groups of one kind (tp, dp, …) on the cluster. `members` is int[n_groups, size], in group order."""

    kind: str
    members: np.ndarray
    intra: Flows  # member to the next member of its node
    inter: Flows  # member to its counterpart in the next node
    latency: float  # s, the worst route between neighbours in different nodes
    alone: bool = False  # each row's first rank moves data for itself (point to point, host memory): no group meets

    @cached_property
    def group_of(self) -> np.ndarray:
        """int[…]: the group of each rank, -1 for ranks in none (up to the highest rank in any)."""
        group_of = np.full(int(self.members.max()) + 1, -1)
        group_of[self.members.ravel()] = np.repeat(np.arange(len(self.members)), self.members.shape[1])
        return group_of


def ring_traffic(kind: str, members: np.ndarray, cluster: Cluster, gpu: np.ndarray, routing: dict) -> Traffic:
    """Ring neighbours of each group: the next member in the node, and the counterpart in the next node.

    gpu: int[ranks], where each rank sits. Counterparts keep to one rail, as NCCL's rings do; a group whose nodes hold
    different numbers of members goes around in rank order instead.
    """
    places = cluster.node_of(gpu[members])
    size = members.shape[1]
    following = np.roll(members, -1, axis=1)
    same_node = places == np.roll(places, -1, axis=1)
    per_node = _members_per_node(places)
    intra, inter = (members[same_node], following[same_node]), (members[~same_node], following[~same_node])
    if size > 1 and per_node is not None:
        blocks = members.reshape(len(members), size // per_node, per_node)
        empty = (members[:0].ravel(), members[:0].ravel())
        near, far = np.roll(blocks, -1, axis=2), np.roll(blocks, -1, axis=1)
        intra = (blocks.ravel(), near.ravel()) if per_node > 1 else empty
        inter = (blocks.ravel(), far.ravel()) if size > per_node else empty
        wired = _wired(blocks, cluster, gpu)
        if wired is not None:
            crossing, latency = _routes(cluster, gpu, *inter, np.ones(inter[0].size), routing)
            return Traffic(kind, members, _routes(cluster, gpu, *wired, routing)[0], crossing, latency)
    crossing, latency = _routes(cluster, gpu, *inter, np.ones(inter[0].size), routing)
    return Traffic(kind, members, _routes(cluster, gpu, *intra, np.ones(intra[0].size), routing)[0], crossing, latency)


def _wired(blocks: np.ndarray, cluster: Cluster, gpu: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Flows (from, to, part) of rings in nodes whose GPUs are wired to each other: as many rings as fill all links.

    None where a switch joins the GPUs, or where the links of some member do not suffice for a ring.
    """
    if cluster.topology.node.mesh is None or blocks.shape[2] == 1:
        return None
    mesh = np.array(cluster.topology.node.mesh)
    src = np.concatenate([blocks.ravel()] * (blocks.shape[2] - 1))
    dst = np.concatenate([np.roll(blocks, -k, axis=2).ravel() for k in range(1, blocks.shape[2])])
    links = mesh[cluster.local_of(gpu[src]), cluster.local_of(gpu[dst])]
    total, peers = np.bincount(src, weights=links), np.bincount(src, weights=links > 0)
    if (peers[blocks.ravel()] < min(2, blocks.shape[2] - 1)).any():  # a ring needs a way in and a way out
        return None
    used = links > 0
    return src[used], dst[used], links[used] / total[src[used]]


MOST_PEERS = 64


def exchange_traffic(
    kind: str, members: np.ndarray, cluster: Cluster, gpu: np.ndarray, routing: dict, forwarded: bool = True
) -> Traffic:
    """All-to-all: each member to all others of its node, and to members of every other node.

    forwarded: messages change rails inside the sender's node (PXN), so that flows between nodes join counterparts;
    else they go to all places of the other nodes in turn. Of more than `MOST_PEERS` nodes, as many at even distances
    stand for all.
    """
    places = cluster.node_of(gpu[members])
    size, per_node = members.shape[1], _members_per_node(places)
    if per_node is None:
        steps = [(0, k) for k in range(1, size)]
        blocks = members.reshape(len(members), 1, size)
    else:
        nodes = size // per_node
        blocks = members.reshape(len(members), nodes, per_node)
        far = np.unique(np.round(np.linspace(1, nodes - 1, min(nodes - 1, MOST_PEERS))).astype(int))
        turn = 0 if forwarded else 1
        steps = [(0, k) for k in range(1, per_node)] + [(k, turn * (k % per_node)) for k in far.tolist()]
    pairs = [(blocks.ravel(), np.roll(blocks, (-a, -b), axis=(1, 2)).ravel()) for a, b in steps]
    ranks, peers = (np.concatenate(ends) for ends in zip(*pairs)) if pairs else (members[:0].ravel(),) * 2
    same = cluster.node_of(gpu[ranks]) == cluster.node_of(gpu[peers])
    near, _ = _routes(cluster, gpu, *_even(ranks[same], peers[same]), routing)
    crossing, latency = _routes(cluster, gpu, *_even(ranks[~same], peers[~same]), routing)
    return Traffic(kind, members, near, crossing, latency)


def _even(src: np.ndarray, dst: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flows and the share of its sender's bytes that each takes: the same of all."""
    return src, dst, 1.0 / np.bincount(src)[src] if len(src) else np.empty(0)


def peer_traffic(kind: str, peers: np.ndarray, cluster: Cluster, gpu: np.ndarray, routing: dict) -> Traffic:
    """Point to point: rank r sends to peers[r] (-1: to nobody)."""
    senders = np.nonzero(peers >= 0)[0]
    receivers = peers[senders]
    near = cluster.node_of(gpu[senders]) == cluster.node_of(gpu[receivers])
    whole = np.ones(len(senders))
    crossing, latency = _routes(cluster, gpu, senders[~near], receivers[~near], whole[~near], routing)
    local, _ = _routes(cluster, gpu, senders[near], receivers[near], whole[near], routing)
    return Traffic(kind, np.column_stack((senders, receivers)), local, crossing, latency, alone=True)


def host_traffic(way: str, cluster: Cluster, gpu: np.ndarray) -> Traffic:
    """Every rank with the memory or the disks of its node (`llmsim.cluster.host.WAYS`)."""
    ranks = np.arange(len(gpu))
    routes = host_routes(cluster, gpu, way)
    flows = Flows(ranks[routes.flow], ranks[routes.flow], routes.link, routes.share)
    none = np.empty(0, dtype=np.int64)
    nothing = Flows(none, none, none, np.empty(0))
    return Traffic(way, ranks[:, None], flows, nothing, float(routes.latency.max()), alone=True)


def _members_per_node(places: np.ndarray) -> int | None:
    """How many consecutive members each node holds, where all nodes of all groups hold equally many."""
    first = places[:, :1]
    per_node = int((places == first).sum(axis=1).max())
    if places.shape[1] % per_node:
        return None
    blocks = places.reshape(len(places), -1, per_node)
    return per_node if (blocks == blocks[:, :, :1]).all() else None


def _routes(
    cluster: Cluster, gpu: np.ndarray, src: np.ndarray, dst: np.ndarray, part: np.ndarray, routing: dict
) -> tuple[Flows, float]:
    """The links of flows that carry `part` of their sender's bytes each, and the worst latency."""
    if len(src) == 0:
        none = np.empty(0, dtype=np.int64)
        return Flows(none, none, none, np.empty(0)), 0.0
    routes = cluster.routes(gpu[src], gpu[dst], **routing)
    share = routes.share * part[routes.flow]
    return Flows(src[routes.flow], dst[routes.flow], routes.link, share), float(routes.latency.max())
