"""The parts of a program that bounds are made of, without the program: costs by group, stages, placement.

Most layouts of a search share most of these, so all are remembered: classes and groups by rank grid, the steps of a
layer by its shard, seconds by work.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from types import SimpleNamespace

from llmsim.catalogue.gpus import Gpu
from llmsim.cost.kernels import KernelCosts, KernelTraits
from llmsim.engine.plan import Plan
from llmsim.model.layer import LayerSteps
from llmsim.model.work import Communication, HostCopy, HostUpdate, Step
from llmsim.parallel.schedules import schedule as find_schedule
from llmsim.parallel.schedules.order import Schedule, peaks
from llmsim.parallel.schedules.paired import paired
from llmsim.parallel.schedules.registry import is_table, needs_times
from llmsim.program.folding.groups import class_groups
from llmsim.program.passes.labels import Numbered
from llmsim.program.passes.op_costs import ClassCosts, ClassGroup
from llmsim.program.physics import Physics, physics_of
from llmsim.program.setup import Setup
from llmsim.scenario import Scenario


@dataclass(eq=False)
class Costs:
    """Seconds of any work on one rank grid when nothing contends: the least over all ranks."""

    kernels: KernelCosts
    classes: tuple[ClassCosts, ...]
    known: dict[Communication | HostCopy | HostUpdate, float] = field(default_factory=dict)
    # Seconds of the passes of a part, by the identity of its steps, which are held so that it stays taken.
    passes: dict[int, tuple[LayerSteps, tuple[float, ...]]] = field(default_factory=dict)

    def seconds(self, work) -> float:
        if not isinstance(work, Communication | HostCopy | HostUpdate):
            time = self.kernels.time(work)
            return time.launch + time.seconds
        if work not in self.known:
            step = Step("", work, "")
            able = [costs for costs in self.classes if costs.groups.keys() >= _ways(work)]
            if isinstance(work, Communication):  # classes in groups that are alike take the same
                able = list({_alike(costs.groups[work.group]): costs for costs in reversed(able)}.values())
            self.known[work] = min((costs.op(step, "", -1).seconds for costs in able), default=0.0)
        return self.known[work]


def _ways(work: Communication | HostCopy | HostUpdate) -> set[str]:
    """The groups, or the ways out of the GPU, that a work takes."""
    if isinstance(work, Communication):
        return {work.group}
    if isinstance(work, HostCopy):
        return {work.way}
    return {"cpu_memory", *(("nvme_read", "nvme_write") if work.read else ())}


def _alike(place: ClassGroup) -> tuple:
    loads = (tuple(sorted(flows for _, flows in part)) for part in (place.intra, place.inter))
    return place.group, len(place.classes), *loads


@dataclass(frozen=True, slots=True)
class Orders:
    """A schedule and what its order alone says of each pipeline rank.

    peaks: parts of micro-batches in flight, at least. late: of them, those in flight while gradients of all chunks add
    up; None where they never all do.
    """

    schedule: Schedule
    peaks: tuple[int, ...]
    late: tuple[int | None, ...]


@dataclass(frozen=True)
class Outline:
    """The setup of a scenario without its faults, whose parts are shared with those of similar layouts."""

    setup: Setup
    orders: Orders

    def held(self, rank: int) -> list[tuple[int, int]]:
        """(direction, virtual stage) of what a pipeline rank holds."""
        placement = self.setup.schedule.placement
        return [(d, s) for d, ranks in enumerate(placement) for s, holder in enumerate(ranks) if holder == rank]

    def matrices(self, stages: tuple[int, ...]) -> Counter:
        """As `StageProgram.matrices`, of several."""
        return sum((self.setup.stages[stage].matrices for stage in stages), Counter())

    @cached_property
    def costs(self) -> Costs:
        layout = replace(self.setup.resolved.layout, micro_batches=1, vpp=1)
        ends = tuple(self.setup.ends or ())
        section = self.setup.scenario.cluster
        paths = (section.routing, self.setup.scenario.simulation.seed, section.rank_map, self.setup.scenario.background)
        sizes = (self.setup.resolved.nodes, self.setup.resolved.gpus_per_node)
        ways = self.setup.options.offloading.ways if self.setup.options.offloading else ()
        groups = (ends, bool(self.setup.resolved.architecture.moe), ways)
        grid = _Grid(self, (self.setup.physics, layout, self.setup.resolved.topology, *sizes, *groups, *paths))
        return _costs(grid)


@lru_cache(maxsize=512)
def _schedule(name: str, stages: int, micro_batches: int, chunks: int, pairs: bool) -> "Orders":
    found = find_schedule(name, stages, micro_batches, chunks)
    found = paired(found) if pairs else found
    late = tuple(_late_flight(found, rank) for rank in range(stages))
    return Orders(found, tuple(peaks(found.orders)), late)


def _late_flight(schedule: Schedule, rank: int) -> int | None:
    """Micro-batches in flight while gradients of all chunks add up, at least; None if they never all do."""
    made: dict[tuple[int, int], list[int]] = {}
    for place, op in enumerate(schedule.orders[rank]):
        if op[0] in ("BW", "W", "FB"):
            made.setdefault(op[4:6] if op[0] == "FB" else op[1:3], []).append(place)
    begin, end = max(places[0] for places in made.values()), min(places[-1] for places in made.values())
    if begin > end:
        return None
    if schedule.split_backward or schedule.directions > 1 or len(made) > 1:
        return 0
    flight = most = 0
    for place, (kind, *_) in enumerate(schedule.orders[rank][:end]):
        flight += 1 if kind == "F" else -1
        most = max(most, flight * (place > begin))
    return most


class _Grid(SimpleNamespace):
    """An outline that is remembered by its rank grid alone."""

    def __init__(self, outline: Outline, key: tuple) -> None:
        super().__init__(outline=outline, key=key)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Grid) and self.key == other.key


@lru_cache(maxsize=512)
def _costs(grid: _Grid) -> Costs:
    setup = grid.outline.setup
    classes, gpu, plan = setup.classes, setup.resolved.topology.gpu, Plan()
    for _ in classes.count:
        plan.capacities += [1.0, gpu.memory_bandwidth * setup.what_if.hbm]
    plan.capacities += setup.cluster.links.bandwidth[classes.link_representative].tolist()
    groups = class_groups(classes, setup.kept, setup.cluster, setup.gpu_of_rank, setup.physics.achieved)
    kernels = _kernels(gpu, setup.physics, setup.traits)
    costs = tuple(
        ClassCosts(plan, Numbered(), kernels, number, groups[number], {}, what_if=setup.what_if)
        for number in range(len(classes.count))
    )
    return Costs(kernels, costs)


@lru_cache(maxsize=16)
def _kernels(gpu: Gpu, physics: Physics, traits: KernelTraits) -> KernelCosts:
    return KernelCosts(gpu, traits, physics.constants(gpu))


def outline_of(scenario: Scenario) -> Outline:
    """Faults only take time away, so that bounds without them hold with them."""
    scenario = scenario.with_values({"faults": []}) if scenario.faults else scenario
    orders = _orders_of(scenario)
    return Outline(Setup(scenario, physics_of(scenario), orders.schedule), orders)


def _orders_of(scenario: Scenario) -> Orders:
    """With fewer micro-batches where they are many: what is read from it is the same."""
    resolved = scenario.resolve()
    name, layout = resolved.schedule, resolved.layout
    count, most = layout.micro_batches, 4 * layout.pp
    # Interleaved orders want a multiple of the stages, schedules from both ends an even number. Orders that are
    # searched for, or a user's own, need not be alike for other numbers.
    if count > most and count % layout.pp == 0 and not is_table(name) and not needs_times(name):
        count = most
    return _schedule(name, layout.pp, count, layout.vpp, scenario.training.overlap.ep)
