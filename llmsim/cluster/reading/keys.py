"""The keys of a topology file: how each value is read, what it is when left out, what a mistake says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmsim.catalogue.gpus import gpu
from llmsim.errors import CatalogueError, TopologyError, UnitError, nearest
from llmsim.units import UNITS, Dimension, parse_count, parse_quantity

SCALE_UPS = ("nvswitch", "cube-mesh", "full-mesh", "bridge-pairs", "pcie", "none")
NETWORKS = ("fat-tree", "leaf-spine", "rail-only", "dragonfly", "torus", "none")
FABRICS = ("infiniband", "roce", "efa", "tcpx", "omni-path", "slingshot", "ethernet")
REQUIRED = object()
MOST_IN_NODE = 1024  # GPUs or NICs; the largest NVLink domain that has been announced has 576
_LEAST = 1e6  # bytes/s; less is a forgotten unit
_MOST = 1e15  # bytes/s; a hundred times the HBM of the fastest GPU


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a topology file: how its value is read, and its default (`REQUIRED`: it must be given)."""

    read: Callable[[object], object]
    default: object = None
    null: bool = False


def _bandwidth(value: object) -> float:
    number = parse_quantity(value, "bandwidth")
    if number < _LEAST:
        raise ValueError("a number without a unit is bytes/s; expected such as '400 Gbps' or '50 GB/s'")
    if number > _MOST:
        raise ValueError(f"expected at most {_MOST:g} bytes/s")
    return number


def _quantity(dimension: Dimension, low: float, high: float) -> Callable[[object], float]:
    """From `low` to `high`, both accepted."""

    def read(value: object) -> float:
        number = parse_quantity(value, dimension)
        if not low <= number <= high:
            raise ValueError(f"expected {low:g} to {high:g}{UNITS[dimension]}")
        return number

    return read


def _count(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        try:
            number = parse_count(value)
        except UnitError:
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"expected a whole number from {low} to {high:,}")
        return number

    return read


def _choice(*names: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}{nearest(value, names)}")
        return str(value)

    return read


def _flag(value: object) -> bool:
    if isinstance(value, str) and value.lower() in ("yes", "on", "no", "off"):
        return value.lower() in ("yes", "on")
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


_LATENCY = _quantity("time", 0.0, 100.0)

# Each key's range is in its reader, far beyond what exists.
# Latencies are of one hop. Where no public figure was found they are plausible round numbers, the same everywhere:
# they matter little, since the cost of a collective's step is a fact about NCCL's protocols, not about wires.
KEYS: dict[str, Key] = {
    "description": Key(_text, ""),
    "sources": Key(_texts, ()),
    "node.gpu": Key(_gpu_name, REQUIRED),
    "node.gpus": Key(_count(1, MOST_IN_NODE), REQUIRED),
    "node.nics": Key(_count(0, MOST_IN_NODE), REQUIRED),
    "node.nic.bandwidth": Key(_bandwidth, REQUIRED),
    "node.nic.latency": Key(_LATENCY, 0.6e-6),
    "node.scale_up": Key(_choice(*SCALE_UPS), REQUIRED),
    "node.scale_up_bandwidth": Key(_bandwidth, None, null=True),  # one GPU, one direction; null: catalogue
    "node.scale_up_latency": Key(_LATENCY, 0.3e-6),
    "node.nvswitches": Key(_count(0, 4096), 0),  # chips; they act as one crossbar
    "node.mesh": Key(_matrix, None, null=True),  # links between each two GPUs; null: DGX-1V's
    "node.pcie.switches": Key(_count(0, 4096), 0),  # 0: GPUs and NICs hang on the CPU itself
    "node.pcie.bandwidth": Key(_bandwidth, None, null=True),  # null: the GPU's
    "node.pcie.latency": Key(_LATENCY, 0.3e-6),
    "node.pcie.p2p": Key(_flag, True),  # false: GPUs meet in host memory
    "node.cpu.sockets": Key(_count(1, 4096), 2),
    "node.cpu.memory": Key(_quantity("bytes", 1e6, 1e18), 1e12),
    "node.cpu.memory_bandwidth": Key(_bandwidth, 200e9),  # of one socket
    "node.cpu.link_bandwidth": Key(_bandwidth, 40e9),  # between two sockets
    "node.nvme.capacity": Key(_quantity("bytes", 0.0, 1e18), 0.0),  # 0: no local disks
    "node.nvme.read_bandwidth": Key(_bandwidth, 20e9),
    "node.nvme.write_bandwidth": Key(_bandwidth, 10e9),
    "node.power": Key(_quantity("power", 1.0, 1e8), None, null=True),  # the whole node at nameplate, W
    "network.kind": Key(_choice(*NETWORKS), REQUIRED),
    "network.fabric": Key(_choice(*FABRICS), "infiniband"),
    "network.rail_optimised": Key(_flag, False),
    "network.rails": Key(_count(1, 4096), None, null=True),  # null: one per NIC of a node
    "network.leaf_nodes": Key(_count(1, 10**6), 32),  # nodes below one leaf (or one set of rail leaves)
    "network.oversubscription": Key(_quantity("number", 1e-3, 1e4), 1.0),  # leaf: down over up
    "network.pod_nodes": Key(_count(1, 10**6), None, null=True),  # nodes below a layer of spines; null: by switch_ports
    "network.core_oversubscription": Key(_quantity("number", 1e-3, 1e4), 1.0),
    "network.switch_ports": Key(_count(2, 4096), 64),  # at the NIC's rate
    "network.latency": Key(_LATENCY, 0.13e-6),  # one switch
    "network.shape": Key(_shape, None, null=True),  # torus: routers in each dimension
    "network.group_leaves": Key(_count(1, 4096), 4),  # dragonfly: routers in a group
    "network.link_bandwidth": Key(_bandwidth, None, null=True),  # torus, dragonfly: router to router
    "network.global_bandwidth": Key(_bandwidth, None, null=True),  # dragonfly: group to group
    "storage.read_bandwidth": Key(_bandwidth, None, null=True),  # shared file system, whole cluster
    "storage.write_bandwidth": Key(_bandwidth, None, null=True),
}

_SWITCHED = ("fat-tree", "leaf-spine", "rail-only")  # kinds of network with leaves below spines
_LINKED = ("nvswitch", "cube-mesh", "full-mesh", "bridge-pairs")
# Keys that say something of some kinds of network or node only: (key of the kind, the kinds).
_GOES_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "network.shape": ("network.kind", ("torus",)),
    "network.group_leaves": ("network.kind", ("dragonfly",)),
    "network.global_bandwidth": ("network.kind", ("dragonfly",)),
    "network.link_bandwidth": ("network.kind", ("torus", "dragonfly")),
    "network.oversubscription": ("network.kind", (*_SWITCHED, "dragonfly")),
    "network.pod_nodes": ("network.kind", _SWITCHED),
    "network.core_oversubscription": ("network.kind", _SWITCHED),
    "network.switch_ports": ("network.kind", _SWITCHED),
    "node.mesh": ("node.scale_up", ("cube-mesh",)),
    "node.scale_up_bandwidth": ("node.scale_up", _LINKED),
    "node.scale_up_latency": ("node.scale_up", _LINKED),
}


def read_values(data: Mapping, where: str, overrides: Mapping[str, object]) -> dict[str, object]:
    """A value for every key of `KEYS`, out of a file's nested mapping and dotted overrides.

    Raises `TopologyError`, one sentence with the file (or override), the key, the value and what is accepted.
    """
    in_file = _read_all({key: (value, f"{where}: {key}") for key, value in _flatten(data)})
    over = _read_all({str(key): (value, f"override {key}") for key, value in overrides.items()})
    values = {key: entry.default for key, entry in KEYS.items()} | in_file | over
    for key, value in values.items():
        if value is REQUIRED:
            raise TopologyError(f"{where}: {key} is missing")
    # An override may change the kind, and then what the file says of the other kind no longer counts.
    _check_kinds(in_file, values | in_file, where + ": ")
    _check_kinds(over, values, "override ")
    return values


def _read_all(given: Mapping[str, tuple[object, str]]) -> dict[str, object]:
    values = {}
    for key, (value, place) in given.items():
        if value == {}:
            raise TopologyError(f"{place}: {{}} says nothing; expected a value, or no such key")
        if key not in KEYS:
            raise TopologyError(f"{place}: unknown key{nearest(key, KEYS)}")
        values[key] = _read(KEYS[key], value, place)
    return values


def _check_kinds(given: Mapping[str, object], values: Mapping[str, object], place: str) -> None:
    """Refuses keys that could change nothing."""
    for key, value in given.items():
        kind, accepted = _GOES_WITH.get(key, ("", ()))
        if kind and value is not None and values[kind] not in accepted:
            told = f"goes with {kind} {' or '.join(accepted)} only, and it is {values[kind]}"
            raise TopologyError(f"{place}{key}: {value!r} {told}; expected no such key")


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
        nested = isinstance(value, Mapping) and value
        pairs += _flatten(value, f"{dotted}.") if nested else [(dotted, value)]
    return pairs
