"""An NCCL or RCCL topology XML (NCCL_TOPO_FILE, NCCL_TOPO_DUMP_FILE) read as a node description.

The file says one node: CPUs, PCIe bridges, GPUs with their NVLinks (`<nvlink>`) or Infinity Fabric (`<xgmi>`), NICs
with their ports and speeds. What lies above the node it does not say; the network is a rail-optimised fat tree unless
overrides say otherwise. Format: src/graph/xml.cc and topo.cc of NVIDIA/nccl and ROCm/rccl.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from llmsim.catalogue.gpus import gpu
from llmsim.catalogue.pci_ids import pci_device
from llmsim.cluster.reading.nccl_nics import Card, Parents, cards_of_job
from llmsim.cluster.reading.nccl_numbers import number
from llmsim.cluster.reading.parse import parse_topology
from llmsim.cluster.topology import Topology
from llmsim.errors import TopologyError

GPU_CLASSES, BRIDGE_CLASS, CPU_CLASS = ("0x03", "0x12"), "0x0604", "0x068001"
_PLACEHOLDER = 1e9  # bytes/s of a NIC where there is none
_PCIE_RATES = (2.5, 5.0, 8.0, 16.0, 32.0, 64.0)  # GT/s a lane
_LINKS = ("nvlink", "xgmi")
_MOST_GPUS, _MOST_LINKS = 1024, 1024  # of a node, and of two devices: far above what is built
_MOST_BYTES, _MOST_DEEP = 64_000_000, 100


def topology_from_xml(path: Path, overrides: Mapping[str, object]) -> Topology:
    """The topology whose node is the one in the file.

    Raises `TopologyError` when the file is no NCCL topology, holds no GPU or odd numbers, or lacks what overrides must
    then give: `node.gpu` where the device id is missing or no GPU of the catalogue, `node.nic.bandwidth` where the NICs
    say no speed.
    """
    root = _read(path)
    if root.tag != "system":
        raise TopologyError(f"{path}: this is no NCCL topology; expected <system> at the top, found <{root.tag}>")
    parents = {child: parent for parent in root.iter() for child in parent}
    gpus = _gpus(root)
    if not gpus:
        raise TopologyError(f"{path}: there is no GPU in this NCCL topology")
    if len(gpus) > _MOST_GPUS:
        raise TopologyError(f"{path}: {len(gpus)} GPUs are no node; expected at most {_MOST_GPUS}")
    nics = cards_of_job(gpus, root, parents, path)
    model = str(overrides.get("node.gpu") or _model(gpus, path))
    data = {
        "description": f"read from the NCCL topology {path.name}",
        "node.gpu": model,
        "node.gpus": len(gpus),
        "node.nics": len(nics),
        "node.nic.bandwidth": overrides.get("node.nic.bandwidth") or _nic_bandwidth(nics, overrides, path),
        "node.pcie.switches": len(_switches(gpus, parents)),
        "node.pcie.bandwidth": _pcie_bandwidth(gpus[0]),
        "node.cpu.sockets": max(1, len(root.findall("cpu"))),
        "network.kind": "fat-tree" if nics or overrides.get("node.nics") else "none",
        "network.rail_optimised": True,
    }
    data |= _scale_up(gpus, model, path, overrides)
    return parse_topology(data, path.stem, str(path), overrides)


class _Tree(ElementTree.TreeBuilder):
    """Refuses what no topology has and what makes small files huge or deep: document types (entities), nesting."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._depth = path, 0

    def doctype(self, *_: object) -> None:
        raise TopologyError(f"{self._path}: a document type is not accepted; expected <system> alone")

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        self._depth += 1
        if self._depth > _MOST_DEEP:
            raise TopologyError(f"{self._path}: elements nest deeper than {_MOST_DEEP}; expected PCIe devices")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        self._depth -= 1
        return super().end(tag)


def _read(path: Path) -> Element:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise TopologyError(f"{path}: a topology of more than {_MOST_BYTES / 1e6:g} MB is not accepted")
        return ElementTree.parse(path, ElementTree.XMLParser(target=_Tree(path))).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise TopologyError(f"{path}: this is not readable XML ({error})") from None


def _gpus(root: Element) -> list[Element]:
    """PCI devices that hold a <gpu>; in files written by hand, without any, those of a GPU's class."""
    devices = list(root.iter("pci"))
    held = [pci for pci in devices if pci.find("gpu") is not None]
    return held or [pci for pci in devices if pci.get("class", "").startswith(GPU_CLASSES)]


def _model(gpus: Sequence[Element], path: Path) -> str:
    """The catalogue's name, by the device id: a compute capability (`sm`) is shared by many models."""
    ids = {(_id(pci, "vendor"), _id(pci, "device")): pci for pci in gpus}
    if len(ids) > 1:
        found = ", ".join(sorted(_told(pci) for pci in ids.values()))
        raise TopologyError(f"{path}: the GPUs are of several models ({found}); set the override node.gpu to one")
    (vendor, device), pci = next(iter(ids.items()))
    known = pci_device(vendor, device) if vendor is not None and device is not None else None
    if known is None or known.gpu is None:
        why = f"are {known.name}, which the catalogue does not have" if known else f"cannot be told from {_told(pci)}"
        raise TopologyError(f"{path}: the GPUs {why}; set the override node.gpu to a name from `llmsim gpus`")
    return known.gpu


def _id(pci: Element, name: str) -> int | None:
    text = pci.get(name, "")
    return int(text, 16) if re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,8}", text) else None


def _told(pci: Element) -> str:
    """What the file says of a device, for messages."""
    if pci.get("vendor") and pci.get("device"):
        return f"vendor {pci.get('vendor')} and device {pci.get('device')}"
    card = pci.find("gpu")
    told = [f"{name} {card.get(name)}" for name in ("sm", "gcn") if card is not None and card.get(name)]
    return f"{' and '.join(told) or 'its class'} without vendor and device"


def _nic_bandwidth(nics: Sequence[Card], overrides: Mapping[str, object], path: Path) -> float:
    """bytes/s of each card, the mean where they differ."""
    total = sum(nic.speed for nic in nics) * 1e6 / 8  # Mb/s
    if total:
        return total / len(nics)
    if not nics and not overrides.get("node.nics"):
        return _PLACEHOLDER
    raise TopologyError(f"{path}: it says no speed of NICs; set the override node.nic.bandwidth, such as '400 Gbps'")


def _switches(gpus: Sequence[Element], parents: Parents) -> set[Element]:
    """The bridges that have a GPU directly below them."""
    above = {parents[pci] for pci in gpus}
    return {bridge for bridge in above if bridge.tag == "pci" and bridge.get("class", "").startswith(BRIDGE_CLASS)}


def _pcie_bandwidth(pci: Element) -> float | None:
    """bytes/s of a slot: lanes times rate, less the line code (8b/10b to 5 GT/s, 128b/130b above); None if untold."""
    rate = re.match(r"(\d+(?:\.\d+)?) GT/s", pci.get("link_speed", ""))
    width = re.fullmatch(r"1|2|4|8|12|16|32", pci.get("link_width", ""))
    if not rate or not width or float(rate[1]) not in _PCIE_RATES:
        return None
    speed = float(rate[1])
    return int(width[0]) * speed * 1e9 / 8 * (0.8 if speed <= 5 else 128 / 130)


def _scale_up(gpus: Sequence[Element], model: str, path: Path, overrides: Mapping[str, object]) -> dict[str, object]:
    """NVSwitch, a mesh of direct links, or nothing but PCIe."""
    order = {_bus(pci.get("busid", str(i))): i for i, pci in enumerate(gpus)}
    mesh = [[0] * len(gpus) for _ in gpus]
    switched = [0] * len(gpus)
    for i, pci in enumerate(gpus):
        for link in (link for kind in _LINKS for link in pci.iter(kind)):
            count = int(number(link, "count", 1, _MOST_LINKS, path)) if "count" in link.attrib else 1
            peer, target = order.get(_bus(link.get("target", ""))), link.get("tclass", "")
            if peer is not None and peer != i:
                mesh[i][peer] += count
            elif peer is None and target != CPU_CLASS and not target.startswith(GPU_CLASSES):
                switched[i] += count
    chip = gpu(model)
    each = chip.nvlink_bandwidth / max(1, chip.nvlink_links)
    if "node.scale_up" in overrides:
        return {"node.scale_up": overrides["node.scale_up"]}
    if any(switched):
        if not all(switched):
            without = gpus[switched.index(0)].get("busid")
            raise TopologyError(f"{path}: GPU {without} has no link to a switch and others do; set node.scale_up")
        return {"node.scale_up": "nvswitch", "node.scale_up_bandwidth": min(switched) * each or None}
    mesh = [[max(out, back) for out, back in zip(row, column)] for row, column in zip(mesh, zip(*mesh))]
    most = max(sum(row) for row in mesh)
    if most:
        return {"node.scale_up": "cube-mesh", "node.mesh": mesh, "node.scale_up_bandwidth": most * each or None}
    return {"node.scale_up": "pcie"}


def _bus(busid: str) -> str:
    """A bus id as others write it: `00000000:1A:00.0` and `0000:1a:00.0` are one."""
    return busid.lower().lstrip("0")
