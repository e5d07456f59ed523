"""From a scenario to a program: cluster, groups, classes, and the lanes of each class."""

from dataclasses import dataclass

import numpy as np

from llmsim.catalogue.host_constants import HostCost
from llmsim.cost.kernels import KernelCosts, KernelTraits
from llmsim.cost.spread import slowest_share
from llmsim.engine.plan import Lane, Plan
from llmsim.program.folding.classes import fold
from llmsim.program.folding.faults import Window, changes
from llmsim.program.folding.groups import class_groups
from llmsim.program.folding.slack import crossed_by_several
from llmsim.program.iteration.data_loading import Loader, storage_bandwidth
from llmsim.program.iteration.jitter import ALL, jittered
from llmsim.program.iteration.lanes import ClassProgram
from llmsim.program.passes.compiler import PassCompiler
from llmsim.program.passes.kernel_launch import Launching
from llmsim.program.passes.labels import Label, Numbered, PassTags, Tag
from llmsim.program.passes.lockstep import Team, teams
from llmsim.program.passes.op_costs import ClassCosts, ClassGroup
from llmsim.program.passes.stage_transfers import Arrivals, Boundary
from llmsim.program.passes.templates import PassTemplates
from llmsim.program.physics import Physics
from llmsim.program.program import Program
from llmsim.program.setup import Ranks
from llmsim.program.stages.parameter_update import Closing
from llmsim.program.stages.stage import StageProgram
from llmsim.scenario import Scenario


@dataclass(frozen=True)
class Builder(Ranks):
    """Makes the lanes of every class."""

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
        groups = class_groups(classes, self.kept, self.cluster, self.gpu_of_rank, self.physics.achieved)
        stage_of = self.resolved.layout.axis_index("pp")[classes.representative]
        labels, tags, signatures = Numbered(), Numbered(), Numbered()
        kernels = KernelCosts(gpu, self._traits, self.physics.constants(gpu))
        meetings, known, blocks = {}, {}, {}
        costs = []
        if self.loading:
            plan.capacities.append(storage_bandwidth(self.scenario))
        storage = len(plan.capacities) - 1
        for number, rank in enumerate(classes.representative.tolist()):
            clock = self._clock(plan, self.faults.gpus.get(int(self.gpu_of_rank[rank]), ()))
            shared = (meetings, clock, self.what_if, known)
            costs.append(ClassCosts(plan, labels, kernels, number, groups[number], *shared))
        arrivals = Arrivals.reserved(plan, self.schedule, self.options.iterations, stage_of.tolist())
        pass_tags = PassTags(self.schedule, tags)
        for cost, team in zip(costs, self._teams(costs)):
            number = cost.number
            host = self._host(groups[number])
            blockwise = self.scenario.simulation.detail == "block"
            compiler = PassCompiler(cost, team, blockwise, signatures.number(team.signature), blocks, host)
            stage, rank = int(stage_of[number]), int(classes.representative[number])
            peers = {way: int(classes.of_rank[peers[rank]]) for way, peers in self.peers.items()}
            boundary = Boundary(plan, cost, self.schedule, stage, self.options, peers, arrivals)
            closing, stages = Closing(self.options, self._degrees(stage)), self._stages_of(stage)
            program = ClassProgram(
                plan=plan,
                tags=pass_tags,
                schedule=self.schedule,
                stages=stages,
                options=self.options,
                closing=closing,
                boundary=boundary,
                templates=PassTemplates(compiler, stages, self.options, closing, boundary),
                loader=self._loader(plan, labels, number, storage),
                launching=None if host.free else Launching(plan, labels, host, self._host_waits),
            )
            plan.lanes += program.build()
        if self.scenario.simulation.jitter:
            plan.lanes = self._jittered(plan.lanes, labels.values, tags.values)
        return Program(
            plan, labels.values, tags.values, classes, stage_of, self.schedule, self.cluster, groups, self.stages,
            self.traffic, self.gpu_of_rank, not self.options.overlap_pipeline,
        )  # fmt: skip

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
            precision=self.scenario.training.precision,
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
        colours = fold(self.marks, inside, [], self.cluster, self.link_marks, enabled=True).of_rank
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
        return (*inside, "dp", "shard", "replica", "edp", "eshard", "ereplica", *handed_over)

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
        degrees |= {kind: layout.degree(kind) for kind in ("shard", "replica", "eshard", "ereplica")}
        degrees["embedding"] = 2 if self.ends is not None and stage in self.ends else 1
        architecture = self.resolved.architecture
        degrees["embedding_parameters"] = architecture.vocab * architecture.hidden / layout.tp
        return degrees


def build_program(scenario: Scenario, physics: Physics) -> Program:
    """The program of a scenario. Raises the `UserError` of whatever does not fit together."""
    return Builder(scenario, physics).build()
