"""A user's own graph as the cluster: node-link JSON, GraphML (`graph_file.py`) or an NCCL topology XML.

A graph's GPUs have `kind: gpu` and a `gpu` (catalogue name, or the override `node.gpu`). A GPU with the attribute `nic`
sends through that NIC only. `build_graph` makes such graphs.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmsim.cluster.reading.graph_file import INSIDE, graph_from_file, read_graph_file
from llmsim.cluster.reading.nccl_xml import topology_from_xml
from llmsim.cluster.reading.parse import parse_topology
from llmsim.cluster.topology import Topology
from llmsim.errors import TopologyError

if TYPE_CHECKING:
    import networkx as nx


def topology_from_graph(path: Path, overrides: Mapping[str, object]) -> Topology:
    """What the rest of llmsim asks of a topology, read off a user's graph (or off an NCCL topology XML)."""
    if path.suffix == ".xml":
        return topology_from_xml(path, overrides)
    file = read_graph_file(path)
    graph = graph_from_file(file)
    gpus = gpus_by_node(graph, str(path))
    first = gpus[0]
    nics = [n for n, d in graph.nodes(data=True) if d["kind"] == "nic" and d["node"] == graph.nodes[first[0]]["node"]]
    model = graph.nodes[first[0]].get("gpu")
    if not model and "node.gpu" not in overrides:
        raise TopologyError(f"{path}: {first[0]} does not say its GPU; give it the attribute gpu, such as 'h100-sxm'")
    ports = [_widest_out(graph, nic, outside=True) for nic in nics] or [0.0]
    nvlink = _total_out(graph, first[0], "nvlink")
    star = any(graph.nodes[n]["kind"] == "nvswitch" for n in graph[first[0]])
    data = {
        "description": graph.graph.get("description", f"a graph of {len(graph)} devices"),
        "node.gpu": model,
        "node.gpus": len(first),
        "node.nics": len(nics),
        "node.nic.bandwidth": max(ports) or 1e9,  # without a NIC it says nothing, but a topology needs it
        "node.scale_up": "pcie" if not nvlink else "nvswitch" if star or len(first) == 1 else "full-mesh",
        "node.scale_up_bandwidth": nvlink or None,
        "node.pcie.bandwidth": _total_out(graph, first[0], "pcie") or None,
        "network.kind": "fat-tree" if len(gpus) > 1 else "none",
    }
    known = {key: value for key, value in data.items() if value is not None or key != "node.gpu"}
    return replace(parse_topology(known, path.stem, str(path), overrides), graph=file)


def gpus_by_node(graph: "nx.DiGraph", path: str) -> list[list[str]]:
    """Names of the GPUs of each node, both in numeric order; `TopologyError` when nodes differ in their count."""
    nodes: dict[int, list[str]] = {}
    for name, data in graph.nodes(data=True):
        if data["kind"] == "gpu":
            nodes.setdefault(data["node"], []).append(name)
    if not nodes:
        raise TopologyError(f"{path}: the graph has no GPU; give its GPUs the attribute kind: gpu")
    if len({len(gpus) for gpus in nodes.values()}) > 1:
        counts = ", ".join(str(len(gpus)) for _, gpus in sorted(nodes.items())[:6])
        raise TopologyError(f"{path}: nodes have different numbers of GPUs ({counts}); they must be alike")
    return [sorted(gpus, key=lambda n: [int(d) for d in re.findall(r"\d+", n)]) for _, gpus in sorted(nodes.items())]


def _total_out(graph: "nx.DiGraph", device: str, kind: str) -> float:
    return sum(data["bandwidth"] for _, _, data in graph.out_edges(device, data=True) if data["kind"] == kind)


def _widest_out(graph: "nx.DiGraph", device: str, outside: bool) -> float:
    out = graph.out_edges(device, data=True)
    return max((d["bandwidth"] for _, b, d in out if (graph.nodes[b]["kind"] not in INSIDE) == outside), default=0.0)
