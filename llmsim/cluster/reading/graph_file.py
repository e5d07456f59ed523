"""A user's graph file, node-link JSON or GraphML: from its text to a checked networkx graph with SI numbers.

Devices have `kind`, GPUs also `gpu` and perhaps `nic`; the node of a device is its attribute `node` or the number in a
name such as `node3.gpu5`. Edges need `bandwidth` and may have `latency`, `kind` and `lanes`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.cluster.topology import GraphFile
from llmsim.documents import parse_json
from llmsim.errors import TopologyError, UnitError, nearest
from llmsim.files import read_text
from llmsim.units import parse_count, parse_quantity

if TYPE_CHECKING:
    import networkx as nx

# Devices that sit inside a node; links that touch anything else belong to the network.
INSIDE = ("gpu", "nvswitch", "pcie", "cpu", "memory", "nvme")
DEVICES = (*INSIDE, "nic", "leaf", "spine", "core", "storage")
_MOST_NODES = 10**6
_MOST_LANES = 10**6
_EXPECTED = "a graph in node-link JSON or GraphML"


def read_graph_file(path: Path) -> GraphFile:
    """The text of the file. Raises `TopologyError` in one sentence."""
    return GraphFile(str(path), read_text(path, TopologyError, _EXPECTED))


@lru_cache(maxsize=8)
def graph_from_file(file: GraphFile) -> "nx.DiGraph":
    """The graph of a `.json` (node-link) or `.graphml` file, every edge checked; `TopologyError` says what is wrong."""
    import networkx as nx

    raw = _graphml(file) if file.path.endswith(".graphml") else _node_link(file)
    return nx.freeze(_checked(raw, file.path))


def _graphml(file: GraphFile) -> "nx.Graph":
    import networkx as nx

    try:
        return nx.parse_graphml(file.text)
    except SyntaxError as error:  # ElementTree's ParseError, which says where
        reason = " ".join(str(error).split())
    except (ValueError, KeyError, TypeError, AttributeError, nx.NetworkXError):
        reason = "a key, an end of an edge or a value of another type than its key says"
    raise TopologyError(f"{file.path}: this is no node-link JSON or GraphML graph ({reason})")


def _node_link(file: GraphFile) -> "nx.Graph":
    """networkx's node-link format, under its old (`links`) and new (`edges`) name alike."""
    import networkx as nx

    def wrong(text: str) -> TopologyError:
        return TopologyError(f"{file.path}: this is no node-link JSON or GraphML graph ({text})")

    data = parse_json(file.text, file.path, TopologyError)
    if not isinstance(data, dict):
        raise wrong("expected a mapping with nodes and links")
    links = "links" if "links" in data else "edges"
    for name in ("nodes", links):
        entries = data.get(name)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise wrong(f"{name}: expected a list of mappings, such as {{id: gpu0, kind: gpu}}")
    graph = nx.MultiDiGraph() if data.get("directed") else nx.MultiGraph()
    about = data.get("graph")
    graph.graph.update(about if isinstance(about, dict) else {})
    for number, node in enumerate(data["nodes"]):
        if not _is_name(node.get("id")):
            raise wrong(f"nodes[{number}].id: expected the name of a device, such as node0.gpu0")
        if node["id"] in graph:
            raise wrong(f"nodes[{number}].id: {node['id']!r} is there twice")
        graph.add_node(node["id"], **{key: value for key, value in node.items() if key != "id"})
    for number, edge in enumerate(data[links]):
        for end in ("source", "target"):
            if not _is_name(edge.get(end)):
                raise wrong(f"{links}[{number}].{end}: expected the name of a device, such as node0.gpu0")
        a, b = edge["source"], edge["target"]
        if a not in graph or b not in graph:
            raise wrong(f"an edge joins {a} and {b}, and one of them is no node")
        graph.add_edge(a, b, **{key: value for key, value in edge.items() if key not in ("source", "target", "key")})
    return graph


def _is_name(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip() != ""


def _checked(raw: "nx.Graph", path: str) -> "nx.DiGraph":
    """A DiGraph with string names, SI numbers and merged parallel edges."""
    import networkx as nx

    graph = nx.DiGraph(**{key: value for key, value in raw.graph.items() if isinstance(key, str)})
    for name, data in raw.nodes(data=True):
        kind = data.get("kind") or str(name).rpartition(".")[2].rstrip("0123456789")
        if kind not in DEVICES:
            hint = nearest(kind, DEVICES) if isinstance(kind, str) else ""
            shown = repr(kind) if isinstance(kind, str) else "that is no text"
            raise TopologyError(f"{path}: {name} has kind {shown}; expected one of {', '.join(DEVICES)}{hint}")
        for key in ("gpu", "nic"):
            if not isinstance(data.get(key), str | None):
                raise TopologyError(f"{path}: {name}: {key}: expected a name, in quotes")
        graph.add_node(str(name), **(data | {"kind": kind, "node": _node_number(str(name), data, path)}))
    for a, b, data in raw.edges(data=True):
        if a == b:
            raise TopologyError(f"{path}: edge {a} to {b}: a link joins two devices")
        bandwidth, latency, lanes = _numbers(data, f"{path}: edge {a} to {b}")
        for u, v in [(str(a), str(b))] + ([] if raw.is_directed() else [(str(b), str(a))]):
            old = graph.get_edge_data(u, v, {"bandwidth": 0.0, "lanes": 0})
            total = {"bandwidth": old["bandwidth"] + bandwidth, "lanes": old["lanes"] + lanes}
            graph.add_edge(u, v, **total, latency=latency, kind=_link_kind(graph, u, v, data))
    return graph


def _numbers(data: Mapping[str, Any], where: str) -> tuple[float, float, int]:
    """bandwidth (bytes/s), latency (s) and lanes of an edge."""
    if data.get("bandwidth") is None:
        raise TopologyError(f"{where}: bandwidth is missing; expected such as '400 Gbps' or '50 GB/s'")
    try:
        bandwidth = parse_quantity(data["bandwidth"], "bandwidth")
        latency = parse_quantity(data.get("latency", 0.0), "time")
    except UnitError as error:
        raise TopologyError(f"{where}: bandwidth or latency: {error}") from None
    if bandwidth <= 0 or latency < 0:
        raise TopologyError(f"{where}: a bandwidth must be above 0 and a latency at least 0")
    try:
        lanes = parse_count(data.get("lanes", 1))
    except UnitError:
        lanes = 0
    if not 1 <= lanes <= _MOST_LANES:
        raise TopologyError(f"{where}: lanes: expected a whole number from 1 to {_MOST_LANES:,}")
    return bandwidth, latency, lanes


def _link_kind(graph: "nx.DiGraph", a: str, b: str, data: Mapping[str, Any]) -> str:
    said = data.get("kind")
    if isinstance(said, str):
        return said
    return "nvlink" if "nvswitch" in (graph.nodes[a]["kind"], graph.nodes[b]["kind"]) else ""


def _node_number(name: str, data: Mapping[str, Any], path: str) -> int:
    """-1 for a switch of the network; the node of a device is its attribute `node`, or what its name says, or 0."""
    if "node" not in data:
        match = re.match(r"node(\d{1,9})\.", name)
        return int(match[1]) if match else -1 if "leaf" in name or "spine" in name else 0
    value = data["node"]
    try:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value) else parse_count(value)
    except UnitError:
        number = -2
    if not -1 <= number <= _MOST_NODES:
        raise TopologyError(f"{path}: {name}: node: expected the number of the node that the device is in, such as 0")
    return number
