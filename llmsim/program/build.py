"""From a scenario to a program: cluster, groups, classes, and the lanes of each class."""

from dataclasses import dataclass

import numpy as np

from llmsim.catalogue.host_constants import HostCost
from llmsim.cost.kernels import KernelCosts
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
from llmsim.program.setup import Setup
from llmsim.program.stages.parameter_update import Closing
from llmsim.scenario import Scenario


@dataclass(frozen=True)
class Builder:
    """Makes the lanes of every class of a setup."""

    setup: Setup

    def _host(self, groups: dict[str, ClassGroup]) -> HostCost:
        """What launching costs the host of a rank that is in these groups."""
        setup = self.setup
        given = setup.scenario.training.host
        if not setup.what_if.launch:
            return HostCost()
        crossing = any(groups[kind].group.nodes > 1 for kind in ("pp_next", "pp_prev") if kind in groups)
        stall = given.stall * (setup.resolved.layout.tp - 1) if crossing else 0.0
        return HostCost(given.kernel, given.communication, given.tensor).slower(1.0 + stall)

    @property
    def _host_waits(self) -> bool:
        """Blocking sends and receives of a pipeline keep the host from running ahead."""
        setup = self.setup
        return setup.resolved.layout.pp > 1 and not setup.options.overlap_pipeline

    # The program ---------------------------------------------------------------------------------------------------

    def build(self) -> Program:
        """Lanes of every class on one plan."""
        setup = self.setup
        classes, plan = setup.classes, Plan()
        gpu = setup.resolved.topology.gpu
        for _ in classes.count:
            plan.capacities += [1.0, gpu.memory_bandwidth * setup.what_if.hbm]
        plan.capacities += setup.cluster.links.bandwidth[classes.link_representative].tolist()
        for number, link in enumerate(classes.link_representative.tolist()):
            self._change(plan, classes.link_resource(number), setup.faults.links.get(link, ()))
        plan.background = setup.background.parts(classes)
        groups = class_groups(classes, setup.kept, setup.cluster, setup.gpu_of_rank, setup.physics.achieved)
        stage_of = setup.resolved.layout.axis_index("pp")[classes.representative]
        labels, tags, signatures = Numbered(), Numbered(), Numbered()
        kernels = KernelCosts(gpu, setup.traits, setup.physics.constants(gpu))
        meetings, known, blocks = {}, {}, {}
        costs = []
        if setup.loading:
            plan.capacities.append(storage_bandwidth(setup.scenario))
        storage = len(plan.capacities) - 1
        for number, rank in enumerate(classes.representative.tolist()):
            clock = self._clock(plan, setup.faults.gpus.get(int(setup.gpu_of_rank[rank]), ()))
            shared = (meetings, clock, setup.what_if, known)
            costs.append(ClassCosts(plan, labels, kernels, number, groups[number], *shared))
        arrivals = Arrivals.reserved(plan, setup.schedule, setup.options.iterations, stage_of.tolist())
        pass_tags = PassTags(setup.schedule, tags)
        for cost, team in zip(costs, self._teams(costs)):
            number = cost.number
            host = self._host(groups[number])
            blockwise = setup.scenario.simulation.detail == "block"
            compiler = PassCompiler(cost, team, blockwise, signatures.number(team.signature), blocks, host)
            stage, rank = int(stage_of[number]), int(classes.representative[number])
            peers = {way: int(classes.of_rank[peers[rank]]) for way, peers in setup.peers.items()}
            boundary = Boundary(plan, cost, setup.schedule, stage, setup.options, peers, arrivals)
            closing, stages = Closing(setup.options, setup.degrees(stage)), setup.stages_of(stage)
            program = ClassProgram(
                plan=plan,
                tags=pass_tags,
                schedule=setup.schedule,
                stages=stages,
                options=setup.options,
                closing=closing,
                boundary=boundary,
                templates=PassTemplates(compiler, stages, setup.options, closing, boundary),
                loader=self._loader(plan, labels, number, storage),
                launching=None if host.free else Launching(plan, labels, host, self._host_waits),
            )
            plan.lanes += program.build()
        if setup.scenario.simulation.jitter:
            plan.lanes = self._jittered(plan.lanes, labels.values, tags.values)
        return Program(
            plan, labels.values, tags.values, classes, stage_of, setup.schedule, setup.cluster, groups, setup.stages,
            setup.traffic, setup.gpu_of_rank, not setup.options.overlap_pipeline,
        )  # fmt: skip

    def _jittered(self, lanes: list[Lane], labels: list[Label], tags: list[Tag]) -> list[Lane]:
        setup = self.setup
        classes, simulation = setup.classes, setup.scenario.simulation
        ranks = classes.representative.tolist()
        members = []
        for number, rank in enumerate(ranks):
            rows = {
                kind: entry.members[entry.group_of[rank]]
                for kind, entry in setup.traffic.items()
                if not entry.alone and rank < len(entry.group_of) and entry.group_of[rank] >= 0
            }
            inside = {kind: int((classes.of_rank[row] == number).sum()) for kind, row in rows.items()}
            members.append(inside | {ALL: int(classes.count[number])})
        return jittered(lanes, labels, tags, members, ranks, simulation.jitter, simulation.seed)

    def _loader(self, plan: Plan, labels: Numbered, number: int, storage: int) -> Loader | None:
        setup = self.setup
        if setup.loading is None:
            return None
        classes, cpu = setup.classes, len(plan.capacities)
        plan.capacities.append(1.0)
        gpu = int(setup.gpu_of_rank[classes.representative[number]])
        self._change(plan, cpu, setup.faults.loaders.get(gpu, ()))
        return Loader(plan, labels, setup.loading, storage, cpu, int(classes.count[number]))

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
        setup = self.setup
        kinds, classes, links = setup.pass_kinds, setup.classes, len(setup.cluster.links)
        inside = {kind: entry for kind, entry in setup.kept.items() if kind in kinds}
        colours = fold(setup.marks, inside, [], setup.cluster, setup.link_marks, enabled=True).of_rank
        shared = crossed_by_several(inside, len(setup.gpu_of_rank), links)
        resources = [classes.link_resource(number) for number in np.unique(classes.of_link[shared]).tolist()]
        return teams(costs, kinds, colours[classes.representative].tolist(), resources)


def build_program(scenario: Scenario, physics: Physics) -> Program:
    """The program of a scenario. Raises the `UserError` of whatever does not fit together."""
    return Builder(Setup(scenario, physics)).build()
