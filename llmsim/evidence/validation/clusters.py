"""The cluster that a row of a table ran on: from its GPU's label, its counts of GPUs and its network column."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llmsim.catalogue.frameworks import framework_data
from llmsim.catalogue.gpus import gpu
from llmsim.cluster.reading.load import load_topology
from llmsim.cluster.topology import Topology
from llmsim.errors import CatalogueError, nearest

_RATE = re.compile(r"(\d+) ?(Gb/s|GB/s)")
_PORTS = re.compile(r"(?:x(\d+)/node|^\D*(\d+)x\d+ ?Gb)")
_MEMORY = re.compile(r"(\d+)GI?B")
_FORM = re.compile(r"SXM\d?|HBM\d\w*|NVL72|\d+W|TENSOR|CORE|GPU")  # words that any GPU of a kind may carry


def cluster_of(row: Mapping[str, str]) -> dict[str, Any]:
    """The `cluster` section for a row (all values text, as csv gives them).

    Raises `CatalogueError` for a GPU without a known node, or more GPUs in a node than it has.
    """
    data, network = framework_data(), row.get("internode_network") or ""
    node = _node(row["gpu"], data["nodes"])
    special: Mapping[str, Any] = next((entry for entry in data["networks"] if re.search(entry["match"], network)), {})
    topology = special.get("topology", node["topology"])
    overrides = dict(node.get("overrides", {})) | special.get("overrides", {})
    most = _in_node(row, topology, node.get("host"))
    nodes, used = _nodes(int(float(row["n_gpus"])), most)
    if nodes > 1 and "topology" not in special:
        overrides |= _nics(network, topology)
    cluster: dict[str, Any] = {"topology": topology, "nodes": nodes}
    if used != _topology(topology).node.gpus:
        cluster["gpus_per_node"] = used
    return cluster | ({"overrides": overrides} if overrides else {})


def _node(gpu: str, nodes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry whose words all stand in a GPU's label (`NVIDIA H100 80GB HBM3` is an H100), of several the longest.

    What is left of the label must not tell another GPU: an `H100-NVL` is none of ours.
    """
    words = set(re.split(r"[\s_-]+", gpu.upper())) - {"", "NVIDIA", "TESLA", "AMD", "INSTINCT"}
    known = [name for name in nodes if set(name.upper().split("-")) <= words]
    if known:
        name = max(known, key=lambda known: len(known.split("-")))
        rest = words - set(name.upper().split("-"))
        if all(_FORM.fullmatch(word) or _is_memory(word, nodes[name]) for word in rest):
            return nodes[name]
    hint = "" if known else nearest(gpu, nodes)
    raise CatalogueError(f"gpu: {gpu!r} has no known node{hint or '; known: ' + ', '.join(nodes)}")


def _is_memory(word: str, node: Mapping[str, Any]) -> bool:
    """Whether a word such as `80GB` (decimal or binary) is the memory of this node's GPU."""
    found = _MEMORY.fullmatch(word)
    memory = gpu(node.get("overrides", {}).get("node.gpu") or _topology(node["topology"]).node.gpu).memory_bytes
    return found is not None and any(abs(int(found[1]) * unit / memory - 1) < 0.05 for unit in (1e9, 2.0**30))


@lru_cache(maxsize=32)
def _topology(name: str) -> Topology:
    return load_topology(name)


def _in_node(row: Mapping[str, str], topology: str, host: int | None) -> int:
    """Most GPUs that the run used of each node; `host`: GPUs of one of a rack's trays, which people call a node too."""
    has, told = _topology(topology).node.gpus, int(float(row.get("gpus_per_node") or 0))
    if not told:
        return has
    if host and told <= host:
        return has // host * told
    if told > has:
        raise CatalogueError(f"gpus_per_node: {told} is more than the {has} GPUs of a {topology} node")
    return told


def _nodes(gpus: int, most: int) -> tuple[int, int]:
    """(nodes, GPUs used in each): as few nodes as hold equal shares."""
    nodes = -(-gpus // most)
    while gpus % nodes:
        nodes += 1
    return nodes, gpus // nodes


def _nics(network: str, topology: str) -> dict[str, Any]:
    """Overrides for a network column that says other NICs than the topology has; a rate alone is one GPU's."""
    rate = _RATE.search(network)
    if not rate:
        return {}
    bits = float(rate[1]) * (1.0 if rate[2] == "Gb/s" else 8.0)
    node = _topology(topology).node
    if "per node" in network:
        bits /= node.nics
    ports = _PORTS.search(network)
    count = int(ports[1] or ports[2]) if ports else node.nics
    overrides: dict[str, Any] = {}
    if count != node.nics and node.gpus <= 8:
        overrides["node.nics"] = count
    if abs(bits * 1e9 / 8 / node.nic.bandwidth - 1) > 0.01:
        overrides["node.nic.bandwidth"] = f"{bits:g} Gbps"
    return overrides
