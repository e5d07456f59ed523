"""A group of ranks on the cluster as collectives see it: members by node, links among them, fabric, latencies."""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from llmsim.catalogue.collective_constants import CATALOGUED, Achieved, collective_constants, generation
from llmsim.cluster.cluster import Cluster
from llmsim.cluster.topology import Topology
from llmsim.cluster.traffic import Traffic
from llmsim.collectives import Group
from llmsim.collectives.achieved import included_latency

# What the cluster calls a fabric, and what collective algorithms call it.
_FABRIC = {"infiniband": "ib", "omni-path": "omnipath"}


def describe_group(
    traffic: Traffic, cluster: Cluster, gpu: np.ndarray, group: int, achieved: Achieved = CATALOGUED
) -> Group:
    """The numbers of one group that its collectives depend on."""
    members = gpu[traffic.members[group]]
    nodes, counts = np.unique(cluster.node_of(members), return_counts=True)
    links = _links_among(cluster, members)
    return _describe(cluster.topology, members.size, len(nodes), int(counts.max()), links, traffic.latency, achieved)


def _links_among(cluster: Cluster, members: np.ndarray) -> int | None:
    """Links that the least wired of these GPUs has to the others of its node; None where a switch or PCIe joins them.

    0 where the members of some node make no ring; all the links of a GPU where no node holds two members.
    """
    if cluster.topology.node.mesh is None:
        return None
    mesh = np.array(cluster.topology.node.mesh)
    node, local = cluster.node_of(members), cluster.local_of(members)
    least = int(mesh.sum(axis=1).max())
    for places in {tuple(local[node == each].tolist()) for each in np.unique(node)}:
        if len(places) > 1:
            among = mesh[np.ix_(places, places)]
            ring = ((among > 0).sum(axis=1) >= min(2, len(places) - 1)).all()
            least = min(least, int(among.sum(axis=1).min()) if ring else 0)
    return least


@lru_cache(maxsize=4096)
def _describe(
    topology: Topology,
    ranks: int,
    nodes: int,
    per_node: int,
    links: int | None,
    latency: float,
    achieved: Achieved,
) -> Group:
    device, node = topology.gpu, topology.node
    bandwidth, scale_up = topology.scale_up_bandwidth, node.scale_up
    if links is not None:
        scale_up = "cube-mesh" if links else "pcie"
        bandwidth = bandwidth * links / max(sum(row) for row in node.mesh) if links else node.pcie.bandwidth
    if scale_up == "pcie" and not node.pcie.p2p:
        scale_up = "host"
    wired = node.mesh is not None and links != 0
    way = "scale_up" if scale_up in ("nvswitch", "cube-mesh") else "pcie"
    stated = node.scale_up_latency if way == "scale_up" else node.pcie.latency
    included = collective_constants()["included_latency"][way]
    group = Group(
        ranks=ranks,
        nodes=nodes,
        per_node=per_node,
        architecture=generation(device.architecture),
        scale_up=scale_up,
        scale_up_bandwidth=bandwidth,
        nvlinks=device.nvlink_links if links is None else links,
        pcie_bandwidth=node.pcie.bandwidth,
        nic_bandwidth=topology.port_bandwidth,
        nics=topology.nic_ports * per_node / node.gpus,
        fabric=_FABRIC.get(topology.network.fabric, topology.network.fabric),
        local_latency=0.0 if topology.graph else (1 if wired else 2) * (stated - included),
        rail_aligned=topology.network.rail_optimised,
        nvls=scale_up == "nvswitch" and device.architecture in ("hopper", "blackwell"),
        achieved=achieved,
    )
    if nodes == 1:
        return group
    beyond = latency + topology.network.latency - included_latency(group)  # links count the switches but one
    # A graph whose links say no latency says nothing about it.
    return replace(group, fabric_latency=max(beyond, 0.0) if topology.graph else beyond)
