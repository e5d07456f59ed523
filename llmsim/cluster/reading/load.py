"""A topology by path or by name, read and parsed; and the names of those that are shipped."""

from collections.abc import Mapping
from pathlib import Path

from llmsim.catalogue.shipped import shipped
from llmsim.cluster.reading.graph_topology import topology_from_graph
from llmsim.cluster.reading.parse import parse_topology, read_yaml
from llmsim.cluster.topology import Topology
from llmsim.errors import CatalogueError, TopologyError, nearest


def _named() -> dict[str, Path]:
    """The file of each name: those of ./topologies, which come first, and those that come with llmsim."""
    return shipped("topologies") | {file.stem: file for file in Path("topologies").glob("*.yaml")}


def topologies() -> list[str]:
    """Names of all topology files that `load_topology` finds."""
    return sorted(_named())


def load_topology(name_or_path: str | Path, overrides: Mapping[str, object] | None = None) -> Topology:
    """The topology of this name (`dgx-h100`) or file (`.yaml`, a graph in `.json`/`.graphml`, NCCL's `.xml`).

    `overrides` maps dotted keys to values: `{"node.nic.bandwidth": "100 Gbps"}`.
    Raises `CatalogueError` for an unknown name and `TopologyError` for a mistake inside a file or an override.
    """
    path = _find(str(name_or_path))
    if path.suffix in (".json", ".graphml", ".xml"):
        return topology_from_graph(path, overrides or {})
    return parse_topology(read_yaml(path), path.stem, str(path), overrides or {})


def _find(name: str) -> Path:
    path, known = Path(name), _named()
    if path.suffix in (".yaml", ".yml", ".json", ".graphml", ".xml"):
        if not path.is_file():
            hint = f"; did you mean {path.stem!r}?" if path.stem in known else ""
            raise TopologyError(f"there is no topology file {name!r}{hint}")
        return path
    if name in known:
        return known[name]
    hint = nearest(name, known) or f"; known: {', '.join(known)}"
    raise CatalogueError(f"no topology named {name!r}{hint}")
