"""The ranks of a scenario: where they sit, what goes wrong there, what they send, and which of them behave alike."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.cluster_of import cluster_of
from llmsim.cluster.traffic import Traffic, exchange_traffic, host_traffic, peer_traffic, ring_traffic
from llmsim.cost.kernels import KernelTraits
from llmsim.cost.spread import slowest_share
from llmsim.model.shard import Shard
from llmsim.parallel.schedules import schedule as find_schedule
from llmsim.parallel.schedules.order import Schedule
from llmsim.parallel.schedules.paired import paired
from llmsim.program.folding.background import Background, plan_background
from llmsim.program.folding.classes import RankClasses, fold
from llmsim.program.folding.faults import FaultPlan, plan_faults
from llmsim.program.folding.slack import without_slack, without_wider
from llmsim.program.iteration.data_loading import Loading, loading_of
from llmsim.program.physics import Physics
from llmsim.program.stages.from_scenario import options_of, shard_of
from llmsim.program.stages.options import Options
from llmsim.program.stages.stage import StageProgram
from llmsim.program.stages.steps import stage_programs
from llmsim.program.what_if import WhatIf
from llmsim.scenario import Scenario


@dataclass(frozen=True)
class Setup:
    """What a scenario's ranks are told by, each part made once.

    order: stands in for the schedule where only what it says of each rank is asked for, as bounds do.
    """

    scenario: Scenario
    physics: Physics
    order: Schedule | None = None

    @property
    def what_if(self) -> WhatIf:
        return self.physics.what_if

    @cached_property
    def resolved(self):
        return self.scenario.resolve()

    @cached_property
    def _faults(self) -> tuple[FaultPlan, Cluster]:
        section = self.scenario.cluster
        whole = cluster_of(self.resolved.topology, section.nodes, section.gpus_per_node)
        return plan_faults(self.scenario.faults, whole)

    @property
    def faults(self) -> FaultPlan:
        return self._faults[0]

    @property
    def cluster(self) -> Cluster:
        """With those links slow or down that are so throughout."""
        return self._faults[1]

    @cached_property
    def schedule(self) -> Schedule:
        if self.order is not None:
            return self.order
        layout = self.resolved.layout
        found = find_schedule(self.resolved.schedule, layout.pp, layout.micro_batches, layout.vpp)
        return paired(found) if self.scenario.training.overlap.ep else found

    @cached_property
    def gpu_of_rank(self) -> np.ndarray:
        """int[ranks]: where each rank sits."""
        given, gpus = self.scenario.cluster.rank_map, np.arange(self.resolved.layout.ranks)
        if given == "round-robin":
            return gpus.reshape(self.cluster.nodes, -1).T.ravel()
        return gpus if given is None else np.array(given)

    @property
    def _routing(self) -> dict:
        return {"routing": self.scenario.cluster.routing, "seed": self.scenario.simulation.seed}

    @cached_property
    def background(self) -> Background:
        return plan_background(self.scenario.background, self.cluster, self._routing)

    @cached_property
    def shard(self) -> Shard:
        return shard_of(self.scenario)

    @cached_property
    def options(self) -> Options:
        return options_of(self.scenario, self.what_if)

    @cached_property
    def loading(self) -> Loading | None:
        return loading_of(self.scenario) if self.what_if.loading else None

    @cached_property
    def stages(self) -> tuple[StageProgram, ...]:
        """Steps and parameters of each virtual stage."""
        return stage_programs(self.scenario, self.shard, self.schedule.virtual_stages, self.ends is not None)

    @cached_property
    def traffic(self) -> dict[str, Traffic]:
        """Every kind of group that the program communicates in."""
        layout = self.resolved.layout
        members = {"tp": layout.groups("tp"), "dp": layout.groups("dp-cp"), "norm": layout.groups("tp-pp")}
        if layout.cp > 1:
            members["cp"] = layout.groups("cp")
        if self.resolved.architecture.moe:
            members |= {"ep": layout.groups("ep"), "edp": layout.groups("edp")}
        if layout.shard < layout.dp * layout.cp:
            parts = ("shard", "replica", *(("eshard", "ereplica") if self.resolved.architecture.moe else ()))
            members |= {kind: layout.groups(kind) for kind in parts}
        ends = self.ends
        if ends is not None:
            members["embedding"] = layout.groups("pp")[:, ends]
        result = {}
        for kind, rows in members.items():
            flows = exchange_traffic if kind == "ep" else ring_traffic  # experts exchange with all, others in rings
            result[kind] = flows(kind, rows, self.cluster, self.gpu_of_rank, self._routing)
        if layout.pp > 1:
            for way, peers in self.peers.items():
                result[f"pp_{way}"] = peer_traffic(f"pp_{way}", peers, self.cluster, self.gpu_of_rank, self._routing)
        for way in self.options.offloading.ways if self.options.offloading else ():
            result[way] = host_traffic(way, self.cluster, self.gpu_of_rank)
        return result

    @cached_property
    def ends(self) -> list[int] | None:
        """Pipeline ranks that hold a copy each of an embedding that the last stage uses too, None without a second one.

        It does where the head is tied to it, or for multi-token prediction.
        """
        last, arch = self.schedule.virtual_stages - 1, self.resolved.architecture
        ends = {self.schedule.rank_of(0, 0), self.schedule.rank_of(0, last)}
        twice = arch.tied_embeddings or arch.mtp_layers
        return sorted(ends) if twice and len(ends) == 2 and self.schedule.directions == 1 else None

    @cached_property
    def peers(self) -> dict[str, np.ndarray]:
        """int[ranks]: the next and the previous rank of each one's pipeline, around the end."""
        rows = self.resolved.layout.groups("pp")
        result = {}
        for way, shift in (("next", -1), ("prev", 1)):
            peers = np.full(rows.size, -1)
            peers[rows.ravel()] = np.roll(rows, shift, axis=1).ravel()
            result[way] = peers
        return result

    @cached_property
    def kept(self) -> dict[str, Traffic]:
        """The traffic on links that can fill."""
        taken = self.background.taken(len(self.cluster.links))
        filling = without_slack(self.traffic, self.cluster, self.gpu_of_rank, taken)
        return without_wider(filling, self.cluster, np.array(sorted(self.faults.links), dtype=int), taken)

    @cached_property
    def classes(self) -> RankClasses:
        layout = self.resolved.layout
        neighbours = list(self.peers.values()) if layout.pp > 1 else []
        enabled = self.scenario.simulation.fold == "auto"
        return fold(self.marks, self.kept, neighbours, self.cluster, self.link_marks, enabled)

    @cached_property
    def marks(self) -> np.ndarray:
        """int[ranks]: stage and faults."""
        layout = self.resolved.layout
        return layout.axis_index("pp") + layout.pp * self.faults.marks(self.gpu_of_rank)

    @cached_property
    def link_marks(self) -> np.ndarray:
        """int[links]: faults and others' traffic."""
        links = len(self.cluster.links)
        others = self.background.marks(links)
        return others + (others.max() + 1) * self.faults.link_marks(links)

    @property
    def traits(self) -> KernelTraits:
        """Under which conditions kernels run here."""
        what_if = self.what_if
        return KernelTraits(
            launch=None if what_if.launch else 0.0,
            math=what_if.math * slowest_share(self.resolved.layout.ranks),
            precision=self.scenario.training.precision,
            sustained=True,
            memory=what_if.hbm,
        )

    @property
    def pass_kinds(self) -> tuple[str, ...]:
        """Groups that communicate within a pass."""
        offloading = self.options.offloading
        inside = ("tp", "cp", "ep", *(offloading.inside_passes if offloading else ()))
        if self.options.sharding is None:
            return inside
        handed_over = ("to_cpu",) if offloading and offloading.optimizer != "none" else ()
        return (*inside, "dp", "shard", "replica", "edp", "eshard", "ereplica", *handed_over)

    def stages_of(self, rank: int) -> dict[tuple[int, int], StageProgram]:
        """What a pipeline rank holds, by direction and virtual stage."""
        return {
            (direction, stage): self.stages[stage]
            for direction in range(self.schedule.directions)
            for stage in range(self.schedule.virtual_stages)
            if self.schedule.rank_of(direction, stage) == rank
        }

    def degrees(self, stage: int) -> dict[str, float]:
        """Ranks in each kind of group that ends an iteration of a pipeline rank."""
        layout = self.resolved.layout
        degrees: dict[str, float] = {"dp": layout.dp * layout.cp, "edp": layout.edp, "norm": layout.tp * layout.pp}
        degrees |= {kind: layout.degree(kind) for kind in ("shard", "replica", "eshard", "ereplica")}
        degrees["embedding"] = 2 if self.ends is not None and stage in self.ends else 1
        architecture = self.resolved.architecture
        degrees["embedding_parameters"] = architecture.vocab * architecture.hidden / layout.tp
        return degrees
