"""The mapping in a topology file to a Topology; what is wrong in it is one sentence."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

from llmsim.catalogue.gpus import gpu
from llmsim.cluster.reading.keys import read_values
from llmsim.cluster.reading.mesh import mesh_of
from llmsim.cluster.topology import MOST_ROUTERS, Cpu, Network, Nic, Node, Nvme, Pcie, Storage, Topology
from llmsim.documents import read_document
from llmsim.errors import TopologyError


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
