"""Topology files: one node and the network above it, read from a few lines of YAML. The keys: `keys.KEYS`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path

from llmsim.catalogue.gpus import Gpu, gpu
from llmsim.catalogue.shipped import shipped
from llmsim.cluster.keys import read_values
from llmsim.cluster.mesh import mesh_of
from llmsim.documents import read_document
from llmsim.errors import CatalogueError, TopologyError, nearest

MOST_GPUS = 2**20  # of one cluster: ten times the largest that have been built
MOST_ROUTERS = 65_536  # of a torus


@dataclass(frozen=True, slots=True)
class Nic:
    bandwidth: float  # bytes/s, one direction
    latency: float  # seconds


@dataclass(frozen=True, slots=True)
class Pcie:
    switches: int
    bandwidth: float
    latency: float
    p2p: bool


@dataclass(frozen=True, slots=True)
class Cpu:
    sockets: int
    memory: float  # bytes of the node
    memory_bandwidth: float  # of one socket
    link_bandwidth: float  # between two sockets, one direction


@dataclass(frozen=True, slots=True)
class Nvme:
    capacity: float  # bytes of the node; 0: none
    read_bandwidth: float
    write_bandwidth: float


@dataclass(frozen=True, slots=True)
class Node:
    """A node is one NVLink domain: a server, or a rack."""

    gpu: str
    gpus: int
    nics: int
    nic: Nic
    scale_up: str
    scale_up_bandwidth: float  # one GPU, one direction; 0 where GPUs meet over PCIe only
    scale_up_latency: float
    nvswitches: int
    mesh: tuple[tuple[int, ...], ...] | None  # links between each two GPUs where there is no switch
    pcie: Pcie
    cpu: Cpu
    nvme: Nvme
    power: float | None


@dataclass(frozen=True, slots=True)
class Network:
    kind: str
    fabric: str
    rail_optimised: bool
    rails: int
    leaf_nodes: int
    oversubscription: float
    pod_nodes: int | None
    core_oversubscription: float
    switch_ports: int
    latency: float
    shape: tuple[int, ...] | None
    group_leaves: int
    link_bandwidth: float | None
    global_bandwidth: float | None


@dataclass(frozen=True, slots=True)
class Storage:
    read_bandwidth: float | None
    write_bandwidth: float | None


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A file with a graph, as it was read: what is remembered by it stays right when the file changes."""

    path: str
    text: str = field(repr=False)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Topology:
    """What a topology file says. `graph` is a graph that the user gave instead."""

    name: str
    node: Node
    network: Network
    storage: Storage
    description: str = ""
    sources: tuple[str, ...] = ()
    path: str = ""
    graph: GraphFile | None = None

    @cached_property
    def gpu(self) -> Gpu:
        return gpu(self.node.gpu)

    @property
    def scale_up_bandwidth(self) -> float:
        """bytes/s that one GPU can send inside its node: NVLink, or PCIe where there is none."""
        return self.node.scale_up_bandwidth or self.node.pcie.bandwidth

    @property
    def has_nvlink(self) -> bool:
        return self.node.scale_up_bandwidth > 0

    @property
    def nics_per_gpu(self) -> float:
        return self.node.nics / self.node.gpus

    @property
    def nic_ports(self) -> int:
        """NICs as routes see them: several NICs of one GPU act as one port."""
        return min(self.node.nics, self.node.gpus)

    @property
    def port_bandwidth(self) -> float:
        """bytes/s of one port. A NIC gives no more than its PCIe slot."""
        if not self.nic_ports:
            return 0.0
        return min(self.node.nic.bandwidth, self.node.pcie.bandwidth) * self.node.nics / self.nic_ports

    @property
    def scale_out_bandwidth(self) -> float:
        """bytes/s per GPU when all GPUs of a node send outside at once."""
        return self.nic_ports * self.port_bandwidth / self.node.gpus


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
        from llmsim.cluster.imported import topology_from_graph

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


def read_yaml(path: Path) -> dict:
    loaded = read_document(path, TopologyError, "a topology in YAML").data
    if not isinstance(loaded, dict):
        raise TopologyError(f"{path}: expected a mapping with node and network")
    return loaded


def parse_topology(data: Mapping, name: str, where: str, overrides: Mapping[str, object]) -> Topology:
    """A `Topology` out of the nested mapping of a file; `where` names the file in messages."""
    return _build(read_values(data, where, overrides), name, where)


def _build(v: dict[str, object], name: str, where: str) -> Topology:
    chip = gpu(v["node.gpu"])
    mesh = _mesh(v, where)
    pcie = v["node.pcie.bandwidth"] or chip.pcie_bandwidth
    linked = v["node.scale_up"] not in ("pcie", "none") and v["node.gpus"] > 1
    scale_up = (v["node.scale_up_bandwidth"] or chip.nvlink_bandwidth) if linked else 0.0
    if linked and not scale_up:
        raise TopologyError(f"{where}: node.scale_up: {v['node.scale_up']} needs links that {chip.label} does not have")
    _check_shape(v, where)
    rails = v["network.rails"] or max(1, min(v["node.nics"], v["node.gpus"]))
    return Topology(
        name=name,
        node=Node(
            gpu=v["node.gpu"],
            gpus=v["node.gpus"],
            nics=v["node.nics"],
            nic=Nic(v["node.nic.bandwidth"], v["node.nic.latency"]),
            scale_up=v["node.scale_up"],
            scale_up_bandwidth=scale_up,
            scale_up_latency=v["node.scale_up_latency"],
            nvswitches=v["node.nvswitches"],
            mesh=mesh,
            pcie=Pcie(v["node.pcie.switches"], pcie, v["node.pcie.latency"], v["node.pcie.p2p"]),
            cpu=Cpu(**_section(v, "node.cpu")),
            nvme=Nvme(**_section(v, "node.nvme")),
            power=v["node.power"],
        ),
        network=Network(**(_section(v, "network") | {"rails": rails})),
        storage=Storage(**_section(v, "storage")),
        description=v["description"],
        sources=v["sources"],
        path=where,
    )


def _check_shape(v: dict[str, object], where: str) -> None:
    """A torus has its shape, and as many routers as can be held."""
    if v["network.kind"] != "torus":
        return
    shape = v["network.shape"]
    if not shape:
        raise TopologyError(f"{where}: network.shape is missing; a torus needs it, such as [4, 4]")
    if prod(shape) > MOST_ROUTERS:
        text = f"{list(shape)} makes {prod(shape):,} routers; expected at most {MOST_ROUTERS:,}"
        raise TopologyError(f"{where}: network.shape: {text}")


def _section(values: dict[str, object], prefix: str) -> dict[str, object]:
    return {key.removeprefix(f"{prefix}."): value for key, value in values.items() if key.startswith(f"{prefix}.")}


def _mesh(v: dict[str, object], where: str) -> tuple[tuple[int, ...], ...] | None:
    try:
        return mesh_of(v["node.scale_up"], v["node.gpus"], gpu(v["node.gpu"]).nvlink_links, v["node.mesh"])
    except ValueError as error:
        raise TopologyError(f"{where}: node.mesh: {error}") from None
