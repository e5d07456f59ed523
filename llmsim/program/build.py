"""From a scenario to a program: cluster, groups, classes, and the lanes of each class."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from llmsim.catalogue.host_constants import HostCost
from llmsim.catalogue.kernel_constants import KernelConstants, kernel_constants
from llmsim.cluster.cluster import Cluster
from llmsim.collectives.calibrate import constants
from llmsim.cost.calibrate import scaled
from llmsim.cost.kernels import KernelCosts, KernelTraits
from llmsim.cost.spread import slowest_share
from llmsim.engine.plan import Lane, Plan
from llmsim.model.shard import Shard
from llmsim.parallel.schedules import schedule as find_schedule
from llmsim.parallel.schedules.order import Schedule
from llmsim.parallel.schedules.paired import paired
from llmsim.program.background import Background, plan_background
from llmsim.program.blocks import PassCompiler
from llmsim.program.choices import options_of, shard_of
from llmsim.program.classes import RankClasses, class_groups, crossed_by_several, fold, without_slack, without_wider
from llmsim.program.contents import stage_programs
from llmsim.program.costs import ClassCosts, ClassGroup
from llmsim.program.data import Loader, Loading, loading_of, storage_bandwidth
from llmsim.program.faults import FaultPlan, Window, changes, plan_faults
from llmsim.program.host import Launching
from llmsim.program.iteration import ClassProgram, StageProgram
from llmsim.program.jitter import ALL, jittered
from llmsim.program.labels import Label, Numbered, Tag
from llmsim.program.options import Options
from llmsim.program.placement import Traffic, exchange_traffic, host_traffic, peer_traffic, ring_traffic
from llmsim.program.team import Team, teams
from llmsim.program.what_if import AS_IS, WhatIf
from llmsim.scenario import Scenario


@dataclass(frozen=True)
class Program:
    """What is played, and what its numbers mean. `stage_of[class]` is a pipeline rank."""

    plan: Plan
    labels: list[Label]
    tags: list[Tag]
    classes: RankClasses
    stage_of: np.ndarray
    schedule: Schedule
    cluster: Cluster
    groups: list[dict[str, ClassGroup]]
    stages: tuple[StageProgram, ...]
    traffic: dict[str, Traffic]


@dataclass(frozen=True)
class Builder:
    """The parts of a program, each made once."""

    scenario: Scenario
    what_if: WhatIf = AS_IS

    @cached_property
    def resolved(self):
        return self.scenario.resolve()

    @cached_property
    def _faults(self) -> tuple[FaultPlan, Cluster]:
        section = self.scenario.cluster
        whole = Cluster(self.resolved.topology, section.nodes, section.gpus_per_node)
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
        return stage_programs(self.scenario, self.shard, self.schedule.virtual_stages)

    # Traffic -------------------------------------------------------------------------------------------------------

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
            members |= {"shard": layout.groups("shard"), "replica": layout.groups("replica")}
        ends = self._ends
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
    def _ends(self) -> list[int] | None:
        """Pipeline ranks that hold copies of a tied embedding, None where there is one copy only."""
        last = self.schedule.virtual_stages - 1
        ends = {self.schedule.rank_of(0, 0), self.schedule.rank_of(0, last)}
        tied = self.resolved.architecture.tied_embeddings
        return sorted(ends) if tied and len(ends) == 2 and self.schedule.directions == 1 else None

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
        return fold(self._marks, self.kept, neighbours, self.cluster, self._link_marks, enabled)

    @cached_property
    def _marks(self) -> np.ndarray:
        """int[ranks]: stage and faults."""
        layout = self.resolved.layout
        return layout.axis_index("pp") + layout.pp * self.faults.marks(self.gpu_of_rank)

    @cached_property
    def _link_marks(self) -> np.ndarray:
        """int[links]: faults and others' traffic."""
        links = len(self.cluster.links)
        others = self.background.marks(links)
        return others + (others.max() + 1) * self.faults.link_marks(links)

    def _host(self, groups: dict[str, ClassGroup]) -> HostCost:
        """What launching costs the host of a rank that is in these groups."""
        given = self.scenario.training.host
        if not self.what_if.launch:
            return HostCost()
        crossing = any(groups[kind].group.nodes > 1 for kind in ("pp_next", "pp_prev") if kind in groups)
        stall = given.stall * (self.resolved.layout.tp - 1) if crossing else 0.0
        return HostCost(given.kernel, given.communication, given.tensor).slower(1.0 + stall)

    @property
    def _host_waits(self) -> bool:
        """Blocking sends and receives of a pipeline keep the host from running ahead."""
        return self.resolved.layout.pp > 1 and not self.options.overlap_pipeline

    # The program ---------------------------------------------------------------------------------------------------

    def build(self) -> Program:
        """Lanes of every class on one plan."""
        classes, plan = self.classes, Plan()
        gpu = self.resolved.topology.gpu
        for _ in classes.count:
            plan.capacities += [1.0, gpu.memory_bandwidth * self.what_if.hbm]
        plan.capacities += self.cluster.links.bandwidth[classes.link_representative].tolist()
        for number, link in enumerate(classes.link_representative.tolist()):
            self._change(plan, classes.link_resource(number), self.faults.links.get(link, ()))
        plan.background = self.background.parts(classes)
        groups = class_groups(classes, self.kept, self.cluster, self.gpu_of_rank)
        stage_of = self.resolved.layout.axis_index("pp")[classes.representative]
        labels, tags, signatures = Numbered(), Numbered(), Numbered()
        kernels = KernelCosts(gpu, self._traits, self._kernel_constants)
        meetings, known, blocks, arrivals = {}, {}, {}, {}
        costs = []
        if self.loading:
            plan.capacities.append(storage_bandwidth(self.scenario))
        storage = len(plan.capacities) - 1
        for number, rank in enumerate(classes.representative.tolist()):
            clock = self._clock(plan, self.faults.gpus.get(int(self.gpu_of_rank[rank]), ()))
            shared = (meetings, clock, self.what_if, known)
            costs.append(ClassCosts(plan, labels, kernels, number, groups[number], *shared))
        for cost, team in zip(costs, self._teams(costs)):
            number = cost.number
            host = self._host(groups[number])
            blockwise = self.scenario.simulation.detail == "block"
            compiler = PassCompiler(cost, team, blockwise, signatures.number(team.signature), blocks, host)
            stage, rank = int(stage_of[number]), int(classes.representative[number])
            program = ClassProgram(
                plan=plan,
                tags=tags,
                compiler=compiler,
                schedule=self.schedule,
                stage=stage,
                stages=self._stages_of(stage),
                options=self.options,
                peers={way: int(classes.of_rank[peers[rank]]) for way, peers in self.peers.items()},
                arrivals=arrivals,
                degrees=self._degrees(stage),
                loader=self._loader(plan, labels, number, storage),
                launching=None if host.free else Launching(plan, labels, host, self._host_waits),
            )
            plan.lanes += program.build()
        if self.scenario.simulation.jitter:
            plan.lanes = self._jittered(plan.lanes, labels.values, tags.values)
        return Program(
            plan, labels.values, tags.values, classes, stage_of, self.schedule, self.cluster, groups, self.stages,
            self.traffic,
        )  # fmt: skip

    @property
    def _kernel_constants(self) -> KernelConstants:
        name = self.resolved.topology.gpu.kernels
        return scaled(kernel_constants(name), dict(self.resolved.calibration.kernels.get(name, {})))

    def _jittered(self, lanes: list[Lane], labels: list[Label], tags: list[Tag]) -> list[Lane]:
        classes, simulation = self.classes, self.scenario.simulation
        ranks = classes.representative.tolist()
        members = []
        for number, rank in enumerate(ranks):
            rows = {
                kind: entry.members[entry.group_of[rank]]
                for kind, entry in self.traffic.items()
                if not entry.alone and rank < len(entry.group_of) and entry.group_of[rank] >= 0
            }
            inside = {kind: int((classes.of_rank[row] == number).sum()) for kind, row in rows.items()}
            members.append(inside | {ALL: int(classes.count[number])})
        return jittered(lanes, labels, tags, members, ranks, simulation.jitter, simulation.seed)

    @property
    def _traits(self) -> KernelTraits:
        what_if = self.what_if
        return KernelTraits(
            launch=None if what_if.launch else 0.0,
            math=what_if.math * slowest_share(self.resolved.layout.ranks),
            sustained=True,
            memory=what_if.hbm,
        )

    def _loader(self, plan: Plan, labels: Numbered, number: int, storage: int) -> Loader | None:
        if self.loading is None:
            return None
        classes, cpu = self.classes, len(plan.capacities)
        plan.capacities.append(1.0)
        gpu = int(self.gpu_of_rank[classes.representative[number]])
        self._change(plan, cpu, self.faults.loaders.get(gpu, ()))
        return Loader(plan, labels, self.loading, storage, cpu, int(classes.count[number]))

    @staticmethod
    def _clock(plan: Plan, windows: tuple[Window, ...]) -> int | None:
        """A resource that every kernel of a slow GPU needs in full, None for a healthy one."""
        if not windows:
            return None
        plan.capacities.append(1.0)
        Builder._change(plan, len(plan.capacities) - 1, windows)
        return len(plan.capacities) - 1

    @staticmethod
    def _change(plan: Plan, resource: int, windows: tuple[Window, ...]) -> None:
        if windows:
            plan.capacities[resource], later = changes(windows, resource, plan.capacities[resource])
            plan.changes += later

    def _teams(self, costs: list[ClassCosts]) -> list[Team]:
        kinds, classes, links = self._pass_kinds, self.classes, len(self.cluster.links)
        inside = {kind: entry for kind, entry in self.kept.items() if kind in kinds}
        colours = fold(self._marks, inside, [], self.cluster, self._link_marks, enabled=True).of_rank
        shared = crossed_by_several(inside, len(self.gpu_of_rank), links)
        resources = [classes.link_resource(number) for number in np.unique(classes.of_link[shared]).tolist()]
        return teams(costs, kinds, colours[classes.representative].tolist(), resources)

    @property
    def _pass_kinds(self) -> tuple[str, ...]:
        """Groups that communicate within a pass."""
        offloading = self.options.offloading
        inside = ("tp", "cp", "ep", *(offloading.inside_passes if offloading else ()))
        if self.options.sharding is None:
            return inside
        handed_over = ("to_cpu",) if offloading and offloading.optimizer != "none" else ()
        return (*inside, "dp", "shard", "replica", "edp", *handed_over)

    def _stages_of(self, rank: int) -> dict[tuple[int, int], StageProgram]:
        return {
            (direction, stage): self.stages[stage]
            for direction in range(self.schedule.directions)
            for stage in range(self.schedule.virtual_stages)
            if self.schedule.rank_of(direction, stage) == rank
        }

    def _degrees(self, stage: int) -> dict[str, float]:
        layout = self.resolved.layout
        degrees: dict[str, float] = {"dp": layout.dp * layout.cp, "edp": layout.edp, "norm": layout.tp * layout.pp}
        degrees["embedding"] = 2 if self._ends is not None and stage in self._ends else 1
        architecture = self.resolved.architecture
        degrees["embedding_parameters"] = architecture.vocab * architecture.hidden / layout.tp
        return degrees


def build_program(scenario: Scenario, what_if: WhatIf = AS_IS) -> Program:
    """The program of a scenario. Raises the `UserError` of whatever does not fit together."""
    calibrated = scenario.resolve().calibration
    faster = {name: getattr(what_if, name) * factor for name, factor in calibrated.speeds.items()}
    with constants(calibrated.collectives):
        return Builder(scenario, replace(what_if, **faster)).build()
