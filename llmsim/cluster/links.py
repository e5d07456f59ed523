"""What routing answers with: the table of directed links, and the links that flows cross."""

from dataclasses import dataclass

import numpy as np

# `slot` (a NIC's PCIe slot) is an edge of the graph but no link of the table: the NIC's port is never faster.
KINDS = ("nvlink", "pcie", "c2c", "socket", "dram", "nvme", "nic", "spine", "core", "router", "global", "slot")
KIND = {name: code for code, name in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Edge:
    """One directed edge between two named devices of a node or of the fabric."""

    tail: str
    head: str
    kind: str
    bandwidth: float  # bytes/s
    latency: float  # seconds
    lanes: int = 1

    @property
    def name(self) -> str:
        return f"{self.tail}->{self.head}"


def both_ways(a: str, b: str, kind: str, bandwidth: float, latency: float) -> list[Edge]:
    return [Edge(a, b, kind, bandwidth, latency), Edge(b, a, kind, bandwidth, latency)]


@dataclass(frozen=True, slots=True)
class Links:
    """Every directed link, by id. `bandwidth` is what is left under the faults, `nominal` without them."""

    bandwidth: np.ndarray  # float64[L], bytes/s
    nominal: np.ndarray  # float64[L]
    latency: np.ndarray  # float64[L], seconds
    kind: np.ndarray  # uint8[L], index into KINDS

    def __len__(self) -> int:
        return len(self.bandwidth)


@dataclass(frozen=True, slots=True)
class Routes:
    """The links that each of n flows crosses, in coordinate form: flow[k] crosses link[k] with share[k] of its bytes.

    Rows are ordered by flow, and by hop within a flow that is not split. A flow from a GPU to itself has no rows,
    no latency and infinite bandwidth.
    """

    flow: np.ndarray  # int64[k]
    link: np.ndarray  # int64[k]
    share: np.ndarray  # float64[k], 1.0 unless a flow is split over several paths
    latency: np.ndarray  # float64[n], seconds, sum over the hops
    bandwidth: np.ndarray  # float64[n], bytes/s one flow gets when alone
    hops: np.ndarray  # int64[n], edges of the cluster graph


def routes_from_table(table: np.ndarray, hops: np.ndarray, links: Links) -> Routes:
    """Routes out of a table int[n, w] of link ids in hop order, padded with -1."""
    used = table >= 0
    flow = np.repeat(np.arange(len(table)), used.sum(axis=1))
    link = table[used]
    latency = np.append(links.latency, 0.0)[table].sum(axis=1)
    bandwidth = np.append(links.bandwidth, np.inf)[table].min(axis=1, initial=np.inf)
    return Routes(flow, link, np.ones(len(link)), latency, bandwidth, hops)


def routes_of_split_flows(
    table: np.ndarray, hops: np.ndarray, owner: np.ndarray, share: np.ndarray, links: Links
) -> Routes:
    """Routes when flow f is split into the rows of the table whose owner is f, row r with share[r] of its bytes.

    Latency and hops are those of the longest part; a link that several parts cross gets one row with their sum.
    """
    parts = routes_from_table(table, hops, links)
    flow = owner[parts.flow]
    pair, first, inverse = np.unique(flow * len(links) + parts.link, return_index=True, return_inverse=True)
    order = np.argsort(first)  # as met, hop by hop
    flow, link = np.divmod(pair[order], len(links))
    total = np.bincount(inverse, weights=share[parts.flow])[order]
    flows = int(owner.max(initial=-1)) + 1
    latency, longest = np.zeros(flows), np.zeros(flows, dtype=np.int64)
    np.maximum.at(latency, owner, parts.latency)
    np.maximum.at(longest, owner, hops)
    bandwidth = np.full(flows, np.inf)
    np.minimum.at(bandwidth, flow, links.bandwidth[link] / total)
    return Routes(flow, link, total, latency, bandwidth, longest)
