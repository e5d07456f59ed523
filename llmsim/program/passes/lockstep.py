"""Classes that meet inside their passes: the ranks of a tensor-parallel group, say, where they are not one class.

When all members of a team are alike, a pass of theirs can be one block that they begin and end together, exactly as
for a single class; that keeps `detail: block` the same whether ranks are folded or not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from llmsim.engine.plan import Op, Part
from llmsim.model.work import Communication, Step
from llmsim.program.passes.op_costs import ClassCosts, resources_of


@dataclass(frozen=True)
class Team:
    """Members in order of class number; `kinds` are the groups that passes communicate in."""

    members: tuple[ClassCosts, ...]
    kinds: tuple[str, ...]
    alike: bool  # whether the same steps take every member the same time, whatever else goes on

    @cached_property
    def resources(self) -> tuple[int, ...]:
        """All that passes of the members use, in an order that alike teams share."""
        return tuple(dict.fromkeys(resource for member in self.members for resource in _resources(member, self.kinds)))

    @cached_property
    def signature(self) -> tuple:
        """Equal for teams whose passes cost the same."""
        return tuple(_signature(member, self.kinds, self.resources) for member in self.members)

    @cached_property
    def links(self) -> frozenset[int]:
        """What passes of the members use outside of their GPUs."""
        return frozenset(link for member in self.members for link in _links(member, self.kinds))

    def op(self, step: Step, lane: str) -> Op:
        """The step of all members at once; they are known to begin it together."""
        ops = [member.op(step, lane, -1) for member in self._distinct(step)]
        return Op(ops[0].label, tuple(_together(same) for same in zip(*(op.parts for op in ops))))

    def _distinct(self, step: Step) -> list[ClassCosts]:
        """The members whose demands make up the step's: one of each group that communicates, all that compute."""
        if not isinstance(step.work, Communication):
            return list(self.members)
        return list({member.groups[step.work.group].classes: member for member in reversed(self.members)}.values())


def _together(parts: Sequence[Part]) -> Part:
    """Equal flows of several classes as one part, which takes as long as one flow where nothing is full.

    A class of many ranks may fill a link by itself; its part says how long that takes, and asks for less meanwhile.
    """
    seconds = min(part.seconds for part in parts)
    demands: dict[int, float] = {}
    for part in parts:
        longer = part.seconds / seconds if seconds else 1.0
        for resource, amount in part.demands:
            demands[resource] = demands.get(resource, 0.0) + amount * longer
    return parts[0]._replace(seconds=seconds, demands=tuple(sorted(demands.items())))


def _links(member: ClassCosts, kinds: Sequence[str]) -> list[int]:
    places = [member.groups[kind] for kind in kinds if kind in member.groups]
    return [resource for place in places for resource, _ in place.intra + place.inter]


def _resources(member: ClassCosts, kinds: Sequence[str]) -> tuple[int, ...]:
    used = list(resources_of(member.number))
    for kind in kinds:
        if kind in member.groups:
            for other in member.groups[kind].classes:
                used += resources_of(other)
    used += _links(member, kinds)
    if member.clock is not None:
        used.append(member.clock)
    return tuple(dict.fromkeys(used))


def _own(member: ClassCosts) -> tuple[int, ...]:
    return (*resources_of(member.number), *(() if member.clock is None else (member.clock,)))


def _signature(member: ClassCosts, kinds: Sequence[str], resources: tuple[int, ...]) -> tuple:
    where = {resource: index for index, resource in enumerate(resources)}
    capacities = member.plan.capacities
    own = _own(member)
    return (
        member.kernels.gpu.name,
        tuple(capacities[resource] for resource in own),
        tuple(
            (
                kind,
                place.group,
                len(place.classes),
                tuple((where[r], flows, capacities[r]) for r, flows in place.intra),
                tuple((where[r], flows, capacities[r]) for r, flows in place.inter),
            )
            for kind, place in ((kind, member.groups[kind]) for kind in kinds if kind in member.groups)
        ),
    )


def teams(
    costs: Sequence[ClassCosts], kinds: Iterable[str], colours: Sequence[int], shared: Iterable[int]
) -> list[Team]:
    """The team of each class: all classes that it meets in its passes, directly or through others.

    colours: of each class, equal where only what happens outside of passes tells ranks apart. shared: resources that
    passes of several teams use. A pass that is measured alone says nothing of links that others use too, or of links
    and GPUs whose speed changes: the members of such a team are not alike, and their steps are played one by one.
    """
    kinds, plan = tuple(kinds), costs[0].plan
    unsteady = {*shared, *(change.resource for change in plan.changes)}
    unsteady |= {resource for part in plan.background for resource, _ in part.demands}
    first = list(range(len(costs)))  # leads to the first member of each team

    def root(number: int) -> int:
        while first[number] != number:
            first[number] = first[first[number]]
            number = first[number]
        return number

    for member in costs:
        for kind in kinds:
            if kind in member.groups:
                for other in member.groups[kind].classes:
                    low, high = sorted((root(member.number), root(other)))
                    first[high] = low
    members: dict[int, list[ClassCosts]] = {}
    for member in costs:
        members.setdefault(root(member.number), []).append(member)
    made = {}
    for number, found in members.items():
        alike = len({colours[member.number] for member in found}) == 1
        own = {resource for member in found for resource in _own(member)}
        team = Team(tuple(found), kinds, alike)
        made[number] = replace(team, alike=alike and not (own | team.links) & unsteady)
    return [made[root(number)] for number in range(len(costs))]
