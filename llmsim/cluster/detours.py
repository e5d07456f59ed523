"""Ways out of a node whose own NIC is cut off: over NVLink and another GPU's NIC, or over PCIe to another NIC.

NCCL builds its channels over the NICs that are there, so what the lost one carried is spread over all that remain, on
the same rail at both ends (its PXN, and `NCCL_CROSS_NIC=0`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from llmsim.cluster.links import Links
from llmsim.cluster.node import Paths, nic_name, nic_of, node_edges, node_template, padded
from llmsim.cluster.topology import Topology


class Wired(Protocol):
    """What is asked of the cluster here: its links, and where its GPUs are."""

    topology: Topology
    nodes: int
    gpus_per_node: int
    links: Links

    @property
    def node_links(self) -> Sequence[object]: ...

    def node_of(self, gpu: np.ndarray) -> np.ndarray: ...

    def local_of(self, gpu: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Reach:
    """Links of a node from each GPU to the fabric and back, through any of its ports; -1 pads."""

    out: np.ndarray  # int32[gpus, ports, w]
    back: np.ndarray  # int32[gpus, ports, w]
    hops: np.ndarray  # int16[gpus, ports], the slot of the NIC included


@lru_cache(maxsize=32)
def reach(topology: Topology, used: int) -> Reach:
    """Over the first of `used` GPUs that sends through the port, where NVLink leads there; else over PCIe."""
    edges, gpus, ports = node_edges(topology), range(used), range(topology.nic_ports)
    names = [nic_name(topology, port) for port in ports]
    nvlink = Paths([edge for edge in edges if edge.kind == "nvlink"])
    host = Paths(
        [edge for edge in edges if edge.kind != "nvlink"],
        ends_only=[f"gpu{i}" for i in range(topology.node.gpus)] + names,
    )
    home = {port: next((i for i in gpus if nic_of(topology, np.int64(i)) == port), None) for port in ports}
    out, back = [], []
    for i in gpus:
        for port, nic in zip(ports, names):
            at = home[port]
            there = nvlink.path(f"gpu{i}", f"gpu{at}") if at is not None else []
            over = f"gpu{at}" if there else f"gpu{i}"
            here = nvlink.path(over, f"gpu{i}") if there else []
            out.append([*there, *host.path(over, nic), f"{nic}->leaf"])
            back.append([f"leaf->{nic}", *host.path(nic, over), *here])
    index, shape = node_template(topology).index, (used, topology.nic_ports, -1)
    hops = np.array([len(path) for path in out], dtype=np.int16).reshape(shape[:2])
    return Reach(padded(out, index).reshape(shape), padded(back, index).reshape(shape), hops)


def detours(
    cluster: Wired, src: np.ndarray, dst: np.ndarray, out_port: np.ndarray, in_port: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(flow, port out, port in) of the parts that flows between nodes are split into; ports -1: the flow's own way.

    Only flows whose own port is cut off at either end are split, evenly over the ports that work at both. Where none
    does, over pairs of what works at each; where one end has none left, the flow stays as it is.
    """
    whole, kept = np.arange(len(src)), np.full(len(src), -1)
    down = np.flatnonzero(cluster.links.bandwidth[: cluster.nodes * len(cluster.node_links)] <= 0)
    hurt = np.unique(down // max(1, len(cluster.node_links)))
    near = np.flatnonzero(np.isin(cluster.node_of(src), hurt) | np.isin(cluster.node_of(dst), hurt))
    if not len(near):
        return whole, kept, kept
    table = reach(cluster.topology, cluster.gpus_per_node)
    starts, sends = _alive(cluster, src[near], table.out)
    ends, takes = _alive(cluster, dst[near], table.back)
    cut = np.zeros(len(src), dtype=bool)
    cut[near] = ~(sends[starts, out_port[near]] & takes[ends, in_port[near]])
    usable = {flow: (sends[a], takes[b]) for flow, a, b in zip(near.tolist(), starts, ends) if cut[flow]}
    flows, outs, ins = [whole[~cut]], [kept[~cut]], [kept[~cut]]
    for flow, (sending, taking) in usable.items():
        out, into = np.flatnonzero(sending), np.flatnonzero(taking)
        both = np.intersect1d(out, into)
        if len(both):
            out = into = both
        parts = max(len(out), len(into)) if len(out) and len(into) else 0
        flows.append(np.full(max(parts, 1), flow))
        outs.append(np.resize(out, parts) if parts else kept[:1])
        ins.append(np.resize(into, parts) if parts else kept[:1])
    flow = np.concatenate(flows)
    order = np.argsort(flow, kind="stable")
    return flow[order], np.concatenate(outs)[order], np.concatenate(ins)[order]


def _alive(cluster: Wired, gpu: np.ndarray, ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row of each GPU, bool[rows, ports]: which ports it can use), one row for each distinct GPU."""
    distinct, row = np.unique(gpu, return_inverse=True)
    table = ways[cluster.local_of(distinct)]
    first = cluster.node_of(distinct)[:, None, None] * len(cluster.node_links)
    bandwidth = np.append(cluster.links.bandwidth, np.inf)
    return row, (bandwidth[np.where(table >= 0, table + first, -1)] > 0).all(axis=2)
