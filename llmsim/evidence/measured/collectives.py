"""Published nccl-tests sweeps: a table row to the Group it ran on, and how far the model is from what was measured."""

import csv
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path

from llmsim.collectives.group import Group
from llmsim.errors import CollectiveError

# name prefix: (architecture, scale-up rate, NVLinks, PCIe rate); datasheets, one direction per GPU
_GPUS = {
    "V100": ("volta", 150e9, 6, 16e9),
    "A100": ("ampere", 300e9, 12, 32e9),
    "A800": ("ampere", 200e9, 8, 32e9),
    "A10": ("ampere", 0.0, 0, 32e9),
    "A10G": ("ampere", 0.0, 0, 32e9),
    "L4": ("ampere", 0.0, 0, 32e9),
    "RTX4090": ("ampere", 0.0, 0, 32e9),
    "L40S": ("ampere", 0.0, 0, 32e9),
    "H100-PCIe": ("hopper", 300e9, 12, 64e9),
    "H100": ("hopper", 450e9, 18, 64e9),
    "H800": ("hopper", 200e9, 8, 64e9),
    "H20": ("hopper", 450e9, 18, 64e9),
    "GH200": ("hopper", 450e9, 18, 64e9),
    "H200": ("hopper", 450e9, 18, 64e9),
    "B200": ("blackwell", 900e9, 18, 64e9),
    "B300": ("blackwell", 900e9, 18, 128e9),
    "GB200": ("blackwell", 900e9, 18, 64e9),
    "GB300": ("blackwell", 900e9, 18, 128e9),
    "RTXPRO6000": ("blackwell", 0.0, 0, 64e9),
}
_OPERATION = {"alltoall": "all_to_all", "sendrecv": "send_recv"}
_FABRIC = re.compile(r"(\d+)x(\d+)\s+(\w+)")


def row_group(row: dict) -> Group:
    """The group of a row with columns gpu, n_gpus, gpus_per_node, nodes, intra, inter, algo_forced."""
    name = str(row["gpu"]).split("/")[0].rstrip("?")
    if name not in _GPUS:
        raise CollectiveError(f"gpu {row['gpu']!r} is unknown; expected one of {', '.join(_GPUS)}")
    architecture, rate, links, pcie = _GPUS[name]
    ranks, nodes = int(row["n_gpus"]), int(row["nodes"])
    per_node = -(-ranks // nodes)
    if not rate:
        scale_up = "host" if "PCIe4" in row["intra"] and ranks > 2 else "pcie"
    else:
        scale_up = "nvswitch" if "NVL72" in row["intra"] or "NVSwitch" in row["intra"] else "cube-mesh"
        scale_up = "nvswitch" if row["intra"] == "NVLink5" else scale_up
    nics, nic_rate, fabric = 1.0, 12.5e9, "ib"
    match = _FABRIC.match(str(row["inter"] or ""))
    if match:
        nics, nic_rate, fabric = float(match[1]), float(match[2]) / 8 * 1e9, match[3].lower()
        nics *= min(1.0, per_node / int(row["gpus_per_node"]))
    # In-switch reduction exists from Hopper's NVSwitch on; bridges and cube meshes have none.
    nvls = scale_up == "nvswitch" and architecture in ("hopper", "blackwell")
    sharp = "SHARP" in str(row["algo_forced"] or "")
    return Group(
        ranks,
        nodes,
        per_node,
        architecture,
        scale_up,
        rate or pcie,
        links,
        pcie,
        nic_rate,
        max(nics, 1.0),
        fabric,
        nvls=nvls,
        sharp=sharp,
    )


def row_operation(row: dict) -> str:
    """The operation's name here for the name that nccl-tests gives it."""
    return _OPERATION.get(row["collective"], row["collective"])


def row_algorithm(row: dict) -> str:
    """The forced algorithm of a row, or auto."""
    return "nvls" if row.get("algo_forced") == "NVLS" else "auto"


@lru_cache(maxsize=4)
def measured_rows(path: str | None = None) -> tuple[dict, ...]:
    """Healthy rows of a table with the catalogue's columns (sizes bytes, times us); default: the catalogue's own."""
    if path:
        text = Path(path).read_text(encoding="utf-8")
    else:
        text = resources.files("llmsim.catalogue").joinpath("measured/collectives.csv").read_text(encoding="utf-8")
    return tuple(row for row in csv.DictReader(text.splitlines()) if row["healthy"] == "1" and row["time_us_oop"])
