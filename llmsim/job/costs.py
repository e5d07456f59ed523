"""What saving and loading take on a cluster: model states and links go in, seconds and bytes come out.

States are written once, whatever the layout: the ranks that hold equal copies share the writing. A copy runs at the
pace of the narrowest of its links: GPUs to host memory over PCIe or C2C, nodes to the network, the storage itself.
"""

from dataclasses import dataclass

import numpy as np

from llmsim.catalogue.failures import job_constants
from llmsim.catalogue.memory_constants import memory_constants
from llmsim.cluster.cluster import Cluster
from llmsim.cluster.host import host_routes
from llmsim.cluster.topology import Topology
from llmsim.errors import ScenarioError, TopologyError
from llmsim.scenario import Scenario

_COMPUTES = {"fp32": 4.0, "tf32": 4.0}  # bytes of a weight that computes; all others are held in 16 bits


@dataclass(frozen=True, slots=True)
class Transfer:
    """size: bytes of a checkpoint. Seconds: `offload` from GPUs to host memory, `write` to storage, `peer` to another
    node's memory, `load` from storage, `load_peer` from a peer. nic_share: of the NICs of a node, while it writes."""

    size: float
    offload: float
    write: float
    peer: float
    load: float
    load_peer: float
    nic_share: float


def saved_bytes(scenario: Scenario) -> float:
    """Bytes a parameter of a checkpoint: the weights that compute, the fp32 master copy and the optimizer's states.

    14 with Adam in 16 bits (Megatron's distributed optimizer), 12 where the master copy is all there is (FSDP).
    """
    given = scenario.job.checkpoint.bytes_per_parameter
    if given != "auto":
        return given
    known, weight = memory_constants(), _COMPUTES.get(scenario.training.precision, 2.0)
    state = known.state[scenario.training.optimizer]
    if weight == 4.0 or scenario.parallelism.zero == 3:
        return 4.0 + state
    return weight + known.master + state


def transfers(scenario: Scenario, parameters: float) -> Transfer:
    """Of the scenario's own checkpoints. Raises `ScenarioError` where the cluster has no way to host memory."""
    resolved, section = scenario.resolve(), scenario.job.checkpoint
    topology, nodes, gpus = resolved.topology, resolved.nodes, resolved.gpus
    size = parameters * saved_bytes(scenario)
    pcie = _to_host(scenario) * gpus
    nics = _nics(topology)
    into = min(pcie, nics * nodes) if nics else pcie
    write, read = (
        _storage(section.bandwidth, topology.storage.write_bandwidth, nodes),
        _storage(section.read_bandwidth, topology.storage.read_bandwidth, nodes),
    )
    writing = size / min(write, into)
    copies = _copies(scenario, parameters, size)
    per_gpu = nics / resolved.gpus_per_node if nics else 0.0
    spread = copies / gpus / per_gpu if per_gpu and nodes > 1 else copies / pcie
    share = min(0.99, size / nodes / writing / nics) if nics and nodes > 1 and size else 0.0
    to_peer = size / nodes / nics if nics and nodes > 1 else size / pcie
    return Transfer(
        size=size,
        offload=size / pcie,
        write=writing,
        peer=to_peer,
        load=size / min(read, into) + spread,
        load_peer=to_peer + size / pcie + spread,
        nic_share=share,
    )


def _storage(given: float | str, of_topology: float | None, nodes: int) -> float:
    if given != "auto":
        return float(given)
    return of_topology or job_constants().storage_per_node * nodes


def _nics(topology: Topology) -> float:
    """bytes/s between a node and the network."""
    return topology.nic_ports * topology.port_bandwidth


def _copies(scenario: Scenario, parameters: float, size: float) -> float:
    """Bytes that GPUs get from one another after one of each group has read them: what replicas hold alike."""
    layout = scenario.resolve().layout
    others = layout.dp - 1
    if scenario.parallelism.zero == 3 or not others:
        return 0.0
    held = size if scenario.parallelism.zero == 0 else parameters * _COMPUTES.get(scenario.training.precision, 2.0)
    return held * others


def _to_host(scenario: Scenario) -> float:
    """bytes/s from each GPU to host memory, when all GPUs of a node copy at once."""
    resolved = scenario.resolve()
    cluster = Cluster(resolved.topology, 1, resolved.gpus_per_node)
    try:
        routes = host_routes(cluster, np.arange(resolved.gpus_per_node), "to_cpu")
    except TopologyError:
        if scenario.job.checkpoint.mode != "sync" and scenario.job.checkpoint.stall == "auto":
            raise ScenarioError(
                f"job.checkpoint.stall: {resolved.topology.name} tells no links to host memory, over which a "
                "checkpoint is copied; expected seconds, such as 0.2 s"
            ) from None
        return float("inf")
    users = np.bincount(routes.link)
    shared = cluster.links.bandwidth[routes.link] / users[routes.link]
    return float(shared.min())
