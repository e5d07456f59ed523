"""The parts of a program that bounds are made of, without the program: costs by group, stages, placement.

Most layouts of a search share most of these, so all are remembered: classes and groups by rank grid, the steps of a
layer by its shard, seconds by work.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from types import SimpleNamespace

from llmsim.catalogue.gpus import Gpu
from llmsim.cost.kernels import KernelCosts, KernelTraits
from llmsim.engine.plan import Plan
from llmsim.model.work import Communication, Step
from llmsim.parallel.schedules import schedule as find_schedule
from llmsim.parallel.schedules.order import Schedule, peaks
from llmsim.program.build import Builder
from llmsim.program.classes import class_groups
from llmsim.program.costs import ClassCosts
from llmsim.program.labels import Numbered
from llmsim.program.physics import Physics, physics_of
from llmsim.scenario import Scenario


@dataclass(eq=False)
class Costs:
    """Seconds of any work on one rank grid when nothing contends: the least over all ranks."""

    kernels: KernelCosts
    classes: tuple[ClassCosts, ...]
    known: dict[Communication, float] = field(default_factory=dict)

    def seconds(self, work) -> float:
        if not isinstance(work, Communication):
            time = self.kernels.time(work)
            return time.launch + time.seconds
        if work not in self.known:
            step = Step("", work, work.group)
            places = {}
            for costs in self.classes:
                if work.group in costs.groups:
                    place = costs.groups[work.group]
                    places.setdefault((place.group, len(place.classes), _loads(place)), costs)
            self.known[work] = min((costs.op(step, work.group, -1).seconds for costs in places.values()), default=0.0)
        return self.known[work]


def _loads(place) -> tuple:
    return tuple(sorted(flows for _, flows in place.intra)), tuple(sorted(flows for _, flows in place.inter))


@dataclass(frozen=True)
class Outline(Builder):
    """A `Builder` of a scenario without its faults, whose parts are shared with those of similar layouts."""

    @cached_property
    def schedule(self) -> Schedule:
        """With fewer micro-batches where they are many: what is read from it is the same."""
        return _short_schedule(self.resolved.schedule, self.resolved.layout)[0]

    @cached_property
    def peaks(self) -> tuple[int, ...]:
        """By pipeline rank: parts of micro-batches in flight, at least."""
        return _short_schedule(self.resolved.schedule, self.resolved.layout)[1]

    @cached_property
    def costs(self) -> Costs:
        layout = replace(self.resolved.layout, micro_batches=1, vpp=1)
        ends = tuple(self.ends or ())
        section = self.scenario.cluster
        paths = (section.routing, self.scenario.simulation.seed, section.rank_map, self.scenario.background)
        sizes = (self.resolved.nodes, self.resolved.gpus_per_node)
        grid = _Grid(self, (self.physics, layout, self.resolved.topology, *sizes, ends, *paths))
        return _costs(grid)


def _short_schedule(name: str, layout) -> tuple[Schedule, tuple[int, ...]]:
    most, count = 4 * layout.pp, layout.micro_batches
    # Interleaved orders want a multiple of the stages, schedules from both ends an even number.
    short = count if count <= most or count % layout.pp else most
    return _schedule(name, layout.pp, short, layout.vpp)


@lru_cache(maxsize=512)
def _schedule(name: str, stages: int, micro_batches: int, chunks: int) -> tuple[Schedule, tuple[int, ...]]:
    found = find_schedule(name, stages, micro_batches, chunks)
    return found, tuple(peaks(found.orders))


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
    outline = grid.outline
    classes, gpu, plan = outline.classes, outline.resolved.topology.gpu, Plan()
    for _ in classes.count:
        plan.capacities += [1.0, gpu.memory_bandwidth * outline.what_if.hbm]
    plan.capacities += outline.cluster.links.bandwidth[classes.link_representative].tolist()
    groups = class_groups(classes, outline.kept, outline.cluster, outline.gpu_of_rank, outline.physics.achieved)
    kernels = _kernels(gpu, outline.physics, outline._traits)
    costs = tuple(
        ClassCosts(plan, Numbered(), kernels, number, groups[number], {}, what_if=outline.what_if)
        for number in range(len(classes.count))
    )
    return Costs(kernels, costs)


@lru_cache(maxsize=16)
def _kernels(gpu: Gpu, physics: Physics, traits: KernelTraits) -> KernelCosts:
    return KernelCosts(gpu, traits, physics.constants(gpu))


def outline_of(scenario: Scenario) -> Outline:
    """Faults only take time away, so that bounds without them hold with them."""
    scenario = scenario.with_values({"faults": []}) if scenario.faults else scenario
    return Outline(scenario, physics_of(scenario))
