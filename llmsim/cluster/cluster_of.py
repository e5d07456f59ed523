"""A topology and a number of nodes to the cluster that they make: arithmetic where it is regular, a walk in a graph."""

from collections.abc import Mapping

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.graph_cluster import GraphCluster
from llmsim.cluster.topology import Topology


def cluster_of(
    topology: Topology, nodes: int, gpus_per_node: int | None = None, link_factors: Mapping[int, float] | None = None
) -> Cluster:
    """`nodes` nodes of a topology; see `Cluster`. Raises `TopologyError` when it cannot have so many nodes or GPUs."""
    kind = GraphCluster if topology.graph else Cluster
    return kind(topology, nodes, gpus_per_node, link_factors)
