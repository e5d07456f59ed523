"""Topology files: one node and the network above it, read from a few lines of YAML. README of the keys: `KEYS`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llmsim.catalogue.gpus import Gpu, gpu
from llmsim.errors import CatalogueError, TopologyError, UnitError, nearest
from llmsim.units import parse_quantity

SCALE_UPS = ("nvswitch", "cube-mesh", "full-mesh", "bridge-pairs", "pcie", "none")
NETWORKS = ("fat-tree", "leaf-spine", "rail-only", "dragonfly", "torus", "none")
FABRICS = ("infiniband", "roce", "efa", "tcpx", "omni-path", "slingshot", "ethernet")
REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a topology file: how its value is read, and its default (`REQUIRED`: it must be given)."""

    read: Callable[[object], object]
    default: object = None
    null: bool = False


def _quantity(dimension: str, low: float = 0.0, open_end: bool = True) -> Callable[[object], float]:
    def read(value: object) -> float:
        number = parse_quantity(value, dimension)
        if number < low or (open_end and number == low):
            raise ValueError(f"expected {dimension} {'above' if open_end else 'of at least'} {low:g}")
        return number

    return read


def _count(low: int, high: int = 1_000_000) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return read


def _choice(*names: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}{nearest(value, names)}")
        return str(value)

    return read


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("expected a list of texts")
    return tuple(value)


def _gpu_name(value: object) -> str:
    try:
        return gpu(_text(value)).name
    except CatalogueError as error:
        raise ValueError(str(error)) from None


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(n) is int and n >= 1 for n in value):
        raise ValueError("expected a list of whole numbers such as [4, 4]")
    return tuple(value)


def _matrix(value: object) -> tuple[tuple[int, ...], ...]:
    rows = value if isinstance(value, list) else []
    square = rows and all(isinstance(row, list) and len(row) == len(rows) for row in rows)
    if not square or any(type(n) is not int or n < 0 for row in rows for n in row):
        raise ValueError("expected a square matrix: the number of links between each two GPUs")
    if any(rows[i][j] != rows[j][i] or rows[i][i] for i in range(len(rows)) for j in range(len(rows))):
        raise ValueError("expected a symmetric matrix of links with zeros on its diagonal")
    return tuple(tuple(row) for row in rows)


# Latencies are of one hop. Where no public figure was found they are plausible round numbers, the same everywhere:
# they matter little, since the cost of a collective's step is a fact about NCCL's protocols, not about wires.
KEYS: dict[str, Key] = {
    "description": Key(_text, ""),
    "sources": Key(_texts, ()),
    "node.gpu": Key(_gpu_name, REQUIRED),
    "node.gpus": Key(_count(1, 4096), REQUIRED),
    "node.nics": Key(_count(0, 4096), REQUIRED),
    "node.nic.bandwidth": Key(_quantity("bandwidth"), REQUIRED),
    "node.nic.latency": Key(_quantity("time", open_end=False), 0.6e-6),
    "node.scale_up": Key(_choice(*SCALE_UPS), REQUIRED),
    "node.scale_up_bandwidth": Key(_quantity("bandwidth"), None, null=True),  # one GPU, one direction; null: catalogue
    "node.scale_up_latency": Key(_quantity("time", open_end=False), 0.3e-6),
    "node.nvswitches": Key(_count(0), 0),  # chips; they act as one crossbar
    "node.mesh": Key(_matrix, None, null=True),  # links between each two GPUs; null: DGX-1V's
    "node.pcie.switches": Key(_count(0, 4096), 0),  # 0: GPUs and NICs hang on the CPU itself
    "node.pcie.bandwidth": Key(_quantity("bandwidth"), None, null=True),  # null: the GPU's
    "node.pcie.latency": Key(_quantity("time", open_end=False), 0.3e-6),
    "node.pcie.p2p": Key(_flag, True),  # false: GPUs meet in host memory
    "node.cpu.sockets": Key(_count(1, 4096), 2),
    "node.cpu.memory": Key(_quantity("bytes"), 1e12),
    "node.cpu.memory_bandwidth": Key(_quantity("bandwidth"), 200e9),  # of one socket
    "node.cpu.link_bandwidth": Key(_quantity("bandwidth"), 40e9),  # between two sockets
    "node.nvme.capacity": Key(_quantity("bytes", open_end=False), 0.0),  # 0: no local disks
    "node.nvme.read_bandwidth": Key(_quantity("bandwidth"), 20e9),
    "node.nvme.write_bandwidth": Key(_quantity("bandwidth"), 10e9),
    "node.power": Key(_quantity("power"), None, null=True),  # the whole node at nameplate, W
    "network.kind": Key(_choice(*NETWORKS), REQUIRED),
    "network.fabric": Key(_choice(*FABRICS), "infiniband"),
    "network.rail_optimised": Key(_flag, False),
    "network.rails": Key(_count(1, 4096), None, null=True),  # null: one per NIC of a node
    "network.leaf_nodes": Key(_count(1), 32),  # nodes below one leaf (or one set of rail leaves)
    "network.oversubscription": Key(_quantity("number"), 1.0),  # leaf: down over up
    "network.pod_nodes": Key(_count(1), None, null=True),  # nodes below one layer of spines; null: from switch_ports
    "network.core_oversubscription": Key(_quantity("number"), 1.0),
    "network.switch_ports": Key(_count(2), 64),  # at the NIC's rate
    "network.latency": Key(_quantity("time", open_end=False), 0.13e-6),  # one switch
    "network.shape": Key(_shape, None, null=True),  # torus: routers in each dimension
    "network.group_leaves": Key(_count(1), 4),  # dragonfly: routers in a group
    "network.link_bandwidth": Key(_quantity("bandwidth"), None, null=True),  # torus, dragonfly: router to router
    "network.global_bandwidth": Key(_quantity("bandwidth"), None, null=True),  # dragonfly: group to group
    "storage.read_bandwidth": Key(_quantity("bandwidth"), None, null=True),  # shared file system, whole cluster
    "storage.write_bandwidth": Key(_quantity("bandwidth"), None, null=True),
}


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


@dataclass(frozen=True)
class Topology:
    """What a topology file says. `graph` is the path of a graph that the user gave instead."""

    name: str
    node: Node
    network: Network
    storage: Storage
    description: str = ""
    sources: tuple[str, ...] = ()
    path: str = ""
    graph: str | None = None

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


def topology_folders() -> list[Path]:
    """Where names are looked for: ./topologies, the checkout the package lives in, the package's data."""
    package = Path(__file__).resolve().parent.parent
    return [Path("topologies"), package.parent / "topologies", package / "topologies"]


def topologies() -> list[str]:
    """Names of all topology files that `load_topology` finds."""
    return sorted({file.stem for folder in topology_folders() for file in folder.glob("*.yaml")})


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
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json", ".graphml", ".xml"):
        if not path.is_file():
            raise TopologyError(f"there is no topology file {name!r}")
        return path
    for folder in topology_folders():
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = topologies()
    hint = nearest(name, known) or f"; known: {', '.join(known)}"
    raise CatalogueError(f"no topology named {name!r}{hint}")


def read_yaml(path: Path) -> dict:
    import yaml

    try:
        loaded = yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise TopologyError(f"{path}: this is not readable YAML ({reason})") from None
    if not isinstance(loaded, dict):
        raise TopologyError(f"{path}: expected a mapping with node and network")
    return loaded


def parse_topology(data: Mapping, name: str, where: str, overrides: Mapping[str, object]) -> Topology:
    """A `Topology` out of the nested mapping of a file; `where` names the file in messages."""
    given = {key: (value, f"{where}: {key}") for key, value in _flatten(data)}
    given |= {str(key): (value, f"override {key}") for key, value in overrides.items()}
    values = {}
    for key, (value, place) in given.items():
        if key not in KEYS:
            raise TopologyError(f"{place}: unknown key{nearest(key, KEYS)}")
        values[key] = _read(KEYS[key], value, place)
    for key, entry in KEYS.items():
        if key not in values:
            if entry.default is REQUIRED:
                raise TopologyError(f"{where}: {key} is missing")
            values[key] = entry.default
    return _build(values, name, where)


def _read(entry: Key, value: object, place: str) -> object:
    if value is None and entry.null:
        return None
    try:
        return entry.read(value)
    except UnitError as error:
        raise TopologyError(f"{place}: {error}") from None
    except ValueError as error:
        raise TopologyError(f"{place}: {value!r} is not accepted; {error}") from None


def _flatten(data: Mapping, prefix: str = "") -> list[tuple[str, object]]:
    pairs = []
    for key, value in data.items():
        dotted = f"{prefix}{key}"
        pairs += _flatten(value, f"{dotted}.") if isinstance(value, Mapping) else [(dotted, value)]
    return pairs


def _build(v: dict[str, object], name: str, where: str) -> Topology:
    chip = gpu(v["node.gpu"])
    mesh = _mesh_of(v, where)
    pcie = v["node.pcie.bandwidth"] or chip.pcie_bandwidth
    linked = v["node.scale_up"] not in ("pcie", "none") and v["node.gpus"] > 1
    scale_up = (v["node.scale_up_bandwidth"] or chip.nvlink_bandwidth) if linked else 0.0
    if linked and not scale_up:
        raise TopologyError(f"{where}: node.scale_up: {v['node.scale_up']} needs links that {chip.label} does not have")
    rails = v["network.rails"] or max(1, min(v["node.nics"], v["node.gpus"]))
    if v["network.kind"] == "torus" and not v["network.shape"]:
        raise TopologyError(f"{where}: network.shape is missing; a torus needs it, such as [4, 4]")
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


def _section(values: dict[str, object], prefix: str) -> dict[str, object]:
    return {key.removeprefix(f"{prefix}."): value for key, value in values.items() if key.startswith(f"{prefix}.")}


# DGX-1V: links between each two of its eight GPUs, as `nvidia-smi topo -m` prints them.
DGX1V_MESH = (
    (0, 1, 1, 2, 2, 0, 0, 0),
    (1, 0, 2, 1, 0, 2, 0, 0),
    (1, 2, 0, 2, 0, 0, 1, 0),
    (2, 1, 2, 0, 0, 0, 0, 1),
    (2, 0, 0, 0, 0, 1, 1, 2),
    (0, 2, 0, 0, 1, 0, 2, 1),
    (0, 0, 1, 0, 1, 2, 0, 2),
    (0, 0, 0, 1, 2, 1, 2, 0),
)


def _mesh_of(v: dict[str, object], where: str) -> tuple[tuple[int, ...], ...] | None:
    """Links between each two GPUs where GPUs are wired to each other, else None."""
    count, links, kind = v["node.gpus"], gpu(v["node.gpu"]).nvlink_links, v["node.scale_up"]
    if kind == "full-mesh":
        each = max(1, math.floor(links / max(1, count - 1)))
        return tuple(tuple(0 if i == j else each for j in range(count)) for i in range(count))
    if kind == "bridge-pairs":
        return tuple(tuple(links if i ^ 1 == j else 0 for j in range(count)) for i in range(count))
    if kind != "cube-mesh":
        return None
    mesh = v["node.mesh"] or (DGX1V_MESH if count == 8 else None)
    if mesh is None or len(mesh) != count:
        raise TopologyError(f"{where}: node.mesh must be a {count} by {count} matrix, one row for each of node.gpus")
    return mesh
