"""What the cross-field checks look at: a scenario whose names have been looked up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmsim.parallel.layout import Layout

if TYPE_CHECKING:
    from llmsim.cluster.topology import Topology
    from llmsim.model.architecture import Architecture
    from llmsim.scenario.keys import ScenarioKeys

Found = Iterator[tuple[str, str]]  # what a check yields: (dotted key, rest of the sentence)


@dataclass
class Subject:
    """The scenario with its names looked up; `dp` and `layout` exist once the grid checks have passed."""

    scenario: ScenarioKeys
    architecture: Architecture
    topology: Topology
    schedule: str  # a registered name, or the path of a table as found from here

    @property
    def gpus_per_node(self) -> int:
        return self.scenario.cluster.gpus_per_node or self.topology.node.gpus

    @property
    def gpus(self) -> int:
        return self.scenario.cluster.nodes * self.gpus_per_node

    @property
    def model_parallel(self) -> int:
        """Ranks of one data-parallel replica."""
        p = self.scenario.parallelism
        return p.tp * p.cp * p.pp

    @property
    def dp(self) -> int:
        return self.gpus // self.model_parallel

    @property
    def etp(self) -> int:
        """Tensor-parallel ranks that share an expert: as given, or 1 where each routes tokens of its own."""
        p = self.scenario.parallelism
        return p.etp or (1 if p.sequence_parallel else p.tp)

    @property
    def micro_batches(self) -> int:
        training = self.scenario.training
        return training.global_batch // (training.micro_batch * self.dp)

    @property
    def model_name(self) -> str:
        return self.architecture.name

    def layout(self) -> Layout:
        p = self.scenario.parallelism
        return Layout(
            tp=p.tp,
            pp=p.pp,
            dp=self.dp,
            cp=p.cp,
            ep=p.ep,
            etp=self.etp,
            vpp=p.vpp,
            micro_batches=self.micro_batches,
            order=p.order,
            shard=(p.hsdp or self.dp) * p.cp,
        )


def nearest_divisor(number: int, wanted: int) -> int:
    return min((n for n in range(1, number + 1) if number % n == 0), key=lambda n: abs(n - wanted))
