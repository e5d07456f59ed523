"""State of a node outside its GPUs, in CPU memory and on its disks, against what the node has of them.

What a rank keeps there is pinned memory or a file, which stays allocated once it was needed: the highest points of all
ranks of a node count together. The memory of all sockets counts as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmsim.memory.states import States
from llmsim.program.program import Program
from llmsim.scenario import Scenario

PLACES = ("cpu", "nvme")
CATEGORIES = ("parameters", "gradients", "optimizer", "activations")
_GIB = 2.0**30


@dataclass(frozen=True)
class Store:
    """CPU memory (`cpu`) or disks (`nvme`) of the node that needs most of it. Bytes; `parts` by category."""

    node: int
    capacity: float
    parts: dict[str, float]

    @property
    def held(self) -> float:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.held <= self.capacity

    @property
    def summary(self) -> dict[str, Any]:
        """An entry of the `memory` of a result (GiB)."""
        return (
            {"node": self.node, "capacity_gib": self.capacity / _GIB, "peak_gib": self.held / _GIB, "fits": self.fits}
            | {f"{name}_gib": size / _GIB for name, size in self.parts.items()}
        )  # fmt: skip


def stores(scenario: Scenario, program: Program, states: Sequence[States], moved: Sequence[float]) -> dict[str, Store]:
    """By place, for those that hold anything. By rank class: its states outside, and most of its moved activations."""
    asked, node = scenario.training.offload, scenario.resolve().topology.node
    # Gradients wait in the memory of the CPU that updates, wherever the states of its optimizer are.
    homes = {"parameters": asked.parameters, "gradients": "cpu", "optimizer": asked.optimizer,
             "activations": asked.activations}  # fmt: skip
    held = {name: np.array([getattr(own, name) for own in states]) for name in CATEGORIES[:3]}
    held["activations"] = np.array(moved)
    nodes = program.cluster.node_of(program.gpu_of_rank)
    capacities = {"cpu": node.cpu.memory, "nvme": node.nvme.capacity}
    found = {}
    for place in PLACES:
        sums = {
            name: np.bincount(nodes, weights=sizes[program.classes.of_rank])
            for name, sizes in held.items()
            if homes[name] == place and sizes.any()
        }
        if sums:
            fullest = int(np.argmax(sum(sums.values())))
            parts = {name: float(of_nodes[fullest]) for name, of_nodes in sums.items()}
            found[place] = Store(fullest, capacities[place], parts)
    return found
