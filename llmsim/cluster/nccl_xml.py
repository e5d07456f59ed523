"""An NCCL topology XML (NCCL_TOPO_FILE, NCCL_TOPO_DUMP_FILE) read as a node description.

The file says one node: CPUs, PCIe bridges, GPUs with their NVLinks, NICs with their speeds. What lies above the node
it does not say; the network is a rail-optimised fat tree unless overrides say otherwise.
Format: src/graph/xml.cc and topo.cc of NVIDIA/nccl; examples: Azure's and aws-ofi-nccl's topology files.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from llmsim.catalogue.gpus import gpu
from llmsim.cluster.topology import Topology, parse_topology
from llmsim.errors import TopologyError

GPU_OF_SM = {"70": "v100-32", "80": "a100-80", "89": "l40s", "90": "h100-sxm", "100": "b200", "103": "b300"}
GPU_CLASS, NIC_CLASS, BRIDGE_CLASS, NVSWITCH_CLASS = "0x03", "0x02", "0x0604", "0x0680"


def topology_from_xml(path: Path, overrides: Mapping[str, object]) -> Topology:
    """The topology whose node is the one in the file.

    Raises `TopologyError` when the file is no NCCL topology, holds no GPU, or lacks what overrides must then give
    (`node.gpu` when the GPUs have no `sm`, `node.nic.bandwidth` when the NICs have no `speed`).
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise TopologyError(f"{path}: this is not readable XML ({error})") from None
    if root.tag != "system":
        raise TopologyError(f"{path}: this is no NCCL topology; expected <system> at the top, found <{root.tag}>")
    cards = [pci for pci in root.iter("pci") if _is(pci, "gpu", GPU_CLASS)]
    if not cards:
        raise TopologyError(f"{path}: there is no GPU in this NCCL topology")
    nics = [pci for pci in root.iter("pci") if _is(pci, "nic", NIC_CLASS)]
    model = overrides.get("node.gpu") or _model(cards[0], path)
    data = {
        "description": f"read from the NCCL topology {path.name}",
        "node.gpu": model,
        "node.gpus": len(cards),
        "node.nics": len(nics),
        "node.nic.bandwidth": overrides.get("node.nic.bandwidth") or _nic_bandwidth(nics, path),
        "node.pcie.switches": len(_switches(root)),
        "node.pcie.bandwidth": _pcie_bandwidth(cards[0]),
        "node.cpu.sockets": max(1, len(root.findall("cpu"))),
        "network.kind": "fat-tree" if nics else "none",
        "network.rail_optimised": True,
    }
    data |= _scale_up(cards, str(model))
    return parse_topology(data, path.stem, str(path), overrides)


def _model(card: ElementTree.Element, path: Path) -> str:
    device = card.find("gpu")
    sm = device.get("sm") if device is not None else None
    if sm not in GPU_OF_SM:
        raise TopologyError(f"{path}: which GPU this is cannot be told from sm {sm!r}; set the override node.gpu")
    return GPU_OF_SM[sm]


def _nic_bandwidth(nics: list[ElementTree.Element], path: Path) -> float:
    if not nics:
        return 1.0
    speeds = [float(net.get("speed", 0)) for nic in nics for net in nic.iter("net")]
    if not speeds or not max(speeds):
        raise TopologyError(f"{path}: the NICs have no speed; set the override node.nic.bandwidth, such as '400 Gbps'")
    return max(speeds) * 1e6 / 8  # Mb/s


def _switches(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The lowest bridges that have a GPU below them."""
    bridges = [pci for pci in root.iter("pci") if _is(pci, "pci", BRIDGE_CLASS)]
    return [bridge for bridge in bridges if any(_is(pci, "gpu", GPU_CLASS) for pci in bridge.findall("pci"))]


def _is(pci: ElementTree.Element, child: str, prefix: str) -> bool:
    """Whether a PCI device is of a kind: by its class, or (not for bridges) by what the file says is on it."""
    return pci.get("class", "").startswith(prefix) or (child != "pci" and pci.find(child) is not None)


def _pcie_bandwidth(card: ElementTree.Element) -> float | None:
    """bytes/s of a slot: lanes times rate, less the line code (8b/10b to 5 GT/s, 128b/130b above)."""
    rate = re.match(r"[\d.]+", card.get("link_speed", ""))
    width = card.get("link_width", "")
    if not rate or not width.isdigit() or not int(width):
        return None
    speed = float(rate[0])
    return int(width) * speed * 1e9 / 8 * (0.8 if speed <= 5 else 128 / 130)


def _scale_up(cards: list[ElementTree.Element], model: str) -> dict[str, object]:
    """NVSwitch, a mesh of direct links, or nothing but PCIe."""
    order = {card.get("busid", str(i)).lower(): i for i, card in enumerate(cards)}
    mesh = [[0] * len(cards) for _ in cards]
    switched = 0
    for i, card in enumerate(cards):
        for link in card.iter("nvlink"):
            count, peer = int(link.get("count", 1)), order.get(link.get("target", "").lower())
            if peer is not None:
                mesh[i][peer] = mesh[peer][i] = count
            elif link.get("tclass", "").startswith(NVSWITCH_CLASS):
                switched += count
    chip = gpu(model)
    each = chip.nvlink_bandwidth / max(1, chip.nvlink_links)
    if switched:
        return {"node.scale_up": "nvswitch", "node.scale_up_bandwidth": switched / len(cards) * each}
    most = max(sum(row) for row in mesh)
    if most:
        return {"node.scale_up": "cube-mesh", "node.mesh": mesh, "node.scale_up_bandwidth": most * each}
    return {"node.scale_up": "pcie"}
