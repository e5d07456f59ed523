"""Where groups of ranks sit: which links their traffic crosses, and the few numbers that collectives need to know."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.topology import Topology
from llmsim.collectives import Group


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
    crossing, latency = _routes(cluster, gpu, *inter, routing)
    return Traffic(kind, members, _routes(cluster, gpu, *intra, routing)[0], crossing, latency)


def peer_traffic(kind: str, peers: np.ndarray, cluster: Cluster, gpu: np.ndarray, routing: dict) -> Traffic:
    """Point to point: rank r sends to peers[r] (-1: to nobody)."""
    senders = np.nonzero(peers >= 0)[0]
    receivers = peers[senders]
    near = cluster.node_of(gpu[senders]) == cluster.node_of(gpu[receivers])
    crossing, latency = _routes(cluster, gpu, senders[~near], receivers[~near], routing)
    local, _ = _routes(cluster, gpu, senders[near], receivers[near], routing)
    return Traffic(kind, np.column_stack((senders, receivers)), local, crossing, latency)


def _members_per_node(places: np.ndarray) -> int | None:
    """How many consecutive members each node holds, where all nodes of all groups hold equally many."""
    first = places[:, :1]
    per_node = int((places == first).sum(axis=1).max())
    if places.shape[1] % per_node:
        return None
    blocks = places.reshape(len(places), -1, per_node)
    return per_node if (blocks == blocks[:, :, :1]).all() else None


def _routes(cluster: Cluster, gpu: np.ndarray, src: np.ndarray, dst: np.ndarray, routing: dict) -> tuple[Flows, float]:
    if len(src) == 0:
        none = np.empty(0, dtype=np.int64)
        return Flows(none, none, none, np.empty(0)), 0.0
    routes = cluster.routes(gpu[src], gpu[dst], **routing)
    return Flows(src[routes.flow], dst[routes.flow], routes.link, routes.share), float(routes.latency.max())


# What the cluster calls a thing, and what collective algorithms call it.
_SCALE_UP = {"full-mesh": "cube-mesh", "bridge-pairs": "pcie"}
_FABRIC = {"infiniband": "ib", "omni-path": "omnipath"}


def describe_group(traffic: Traffic, cluster: Cluster, gpu: np.ndarray, group: int) -> Group:
    """The numbers of one group that its collectives depend on."""
    places = cluster.node_of(gpu[traffic.members[group]])
    nodes, counts = np.unique(places, return_counts=True)
    return _describe(cluster.topology, places.size, len(nodes), int(counts.max()), traffic.latency)


@lru_cache(maxsize=4096)
def _describe(topology: Topology, ranks: int, nodes: int, per_node: int, latency: float) -> Group:
    device, node = topology.gpu, topology.node
    scale_up = _SCALE_UP.get(node.scale_up, node.scale_up)
    if scale_up == "pcie" and not node.pcie.p2p:
        scale_up = "host"
    one_leaf = 2 * (node.nic.latency + node.pcie.latency) + topology.network.latency
    return Group(
        ranks=ranks,
        nodes=nodes,
        per_node=per_node,
        architecture=device.architecture,
        scale_up=scale_up,
        scale_up_bandwidth=topology.scale_up_bandwidth,
        nvlinks=device.nvlink_links,
        pcie_bandwidth=node.pcie.bandwidth,
        nic_bandwidth=topology.port_bandwidth,
        nics=topology.nic_ports * per_node / node.gpus,
        fabric=_FABRIC.get(topology.network.fabric, topology.network.fabric),
        fabric_latency=max(latency - one_leaf, 0.0) if nodes > 1 else 0.0,
        rail_aligned=topology.network.rail_optimised,
        nvls=scale_up == "nvswitch" and device.architecture in ("hopper", "blackwell"),
    )
