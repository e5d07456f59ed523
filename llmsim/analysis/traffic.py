"""Which traffic crosses what, from the `network` figures of a result: per GPU, by kind of link and group."""

from collections.abc import Mapping
from typing import Any

LINKS = {
    "nvlink": "NVLink",
    "pcie": "PCIe",
    "c2c": "C2C",
    "socket": "CPU to CPU",
    "dram": "CPU memory",
    "nvme": "NVMe",
    "nic": "NIC",
    "spine": "leaf-spine",
    "core": "spine-core",
    "router": "router",
    "global": "global",
    "slot": "slot",
}
GROUPS = {
    "tp": "tensor parallel",
    "cp": "context parallel",
    "ep": "expert parallel",
    "pp": "pipeline",
    "dp": "data parallel",
    "shard": "data parallel, in shard groups",
    "replica": "data parallel, between shard groups",
    "edp": "data parallel of experts",
    "eshard": "data parallel of experts, inside shard groups",
    "ereplica": "data parallel of experts, between shard groups",
    "embedding": "tied embeddings",
    "norm": "gradient norm",
}
_NEGLIGIBLE = 1e-6  # of the largest entry


def traffic_per_gpu(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By group and kind of link: bytes of one iteration over the number of GPUs, negligible groups left out.

    metrics: of a result. What crosses several links of a kind counts on each of them.
    """
    crossed = metrics.get("network", {}).get("bytes", {})
    found: dict[str, dict[str, float]] = {}
    for kind in (name for name in LINKS if name in crossed):
        for group, amount in crossed[kind].items():
            found.setdefault(group, {})[kind] = amount / metrics["gpus"]
    largest = max((max(kinds.values()) for kinds in found.values()), default=0.0)
    order = sorted(found, key=lambda group: list(GROUPS).index(group) if group in GROUPS else len(GROUPS))
    return {group: found[group] for group in order if max(found[group].values()) > _NEGLIGIBLE * largest}


def group_name(group: str) -> str:
    return GROUPS.get(group, group.replace("_", " "))
