"""Classes that meet inside their passes: the ranks of a tensor-parallel group, say, where they are not one class.

When all members of a team are alike, a pass of theirs can be one block that they begin and end together, exactly as
for a single class; that keeps `detail: block` the same whether ranks are folded or not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from llmsim.engine.plan import Op, Part
from llmsim.model.work import Communication, Step
from llmsim.program.costs import ClassCosts, resources_of


@dataclass(frozen=True)
class Team:
    """Members in order of class number; `kinds` are the groups that passes communicate in."""

    members: tuple[ClassCosts, ...]
    kinds: tuple[str, ...]

    @cached_property
    def resources(self) -> tuple[int, ...]:
        """All that passes of the members use, in an order that alike teams share."""
        return tuple(dict.fromkeys(resource for member in self.members for resource in _resources(member, self.kinds)))

    @cached_property
    def alike(self) -> bool:
        """Whether the same steps take every member the same time: colour refinement finds no difference."""
        return len(self.members) == 1 or len(set(_colours(self.members, self.kinds))) == 1

    @cached_property
    def signature(self) -> tuple:
        """Equal for teams whose passes cost the same."""
        return tuple(_signature(member, self.kinds, self.resources) for member in self.members)

    def op(self, step: Step, lane: str) -> Op:
        """The step of all members at once; they are known to begin it together."""
        ops = [member.op(step, lane, -1) for member in self._distinct(step)]
        parts = []
        for same in zip(*(op.parts for op in ops)):
            demands: dict[int, float] = {}
            for part in same:
                for resource, amount in part.demands:
                    demands[resource] = demands.get(resource, 0.0) + amount
            parts.append(_replace(same[0], demands))
        return Op(ops[0].label, tuple(parts))

    def _distinct(self, step: Step) -> list[ClassCosts]:
        """The members whose demands make up the step's: one of each group that communicates, all that compute."""
        if not isinstance(step.work, Communication):
            return list(self.members)
        return list({member.groups[step.work.group].classes: member for member in reversed(self.members)}.values())


def _replace(part: Part, demands: dict[int, float]) -> Part:
    return part._replace(demands=tuple(sorted(demands.items())))


def _resources(member: ClassCosts, kinds: Sequence[str]) -> tuple[int, ...]:
    used = list(resources_of(member.number))
    for kind in kinds:
        if kind in member.groups:
            place = member.groups[kind]
            for other in place.classes:
                used += resources_of(other)
            used += [resource for resource, _ in place.intra + place.inter]
    if member.clock is not None:
        used.append(member.clock)
    return tuple(dict.fromkeys(used))


def _colours(members: Sequence[ClassCosts], kinds: Sequence[str]) -> list[int]:
    """Of each member: equal for those that meet equal members and cross equal links, and so on (1-WL)."""
    capacities = members[0].plan.capacities
    names: dict[object, int] = {}  # what is told apart -> its colour

    def colour(*properties: object) -> int:
        return names.setdefault(properties, len(names))

    groups = {}  # (kind, classes) -> (group, ((way, resource, flows), ...))
    for member in members:
        for kind, place in member.groups.items():
            if kind in kinds:
                ways = (("in", place.intra), ("out", place.inter))
                loads = tuple((way, resource, flows) for way, entries in ways for resource, flows in entries)
                groups[kind, place.classes] = (place.group, loads)
    own = {member.number: _own(member) for member in members}
    found = {m.number: colour(m.kernels.gpu.name, *(capacities[r] for r in own[m.number])) for m in members}
    links = {r: colour(capacities[r]) for _, loads in groups.values() for _, r, _ in loads}
    for _ in members:
        before = len({*found.values()}), len({*links.values()})
        together = {}
        for key, (group, loads) in groups.items():
            met_there = _sorted(found[number] for number in key[1])
            together[key] = colour(key[0], group, met_there, _sorted((way, links[r], flows) for way, r, flows in loads))
        met: dict[int, list] = {number: [] for number in found}
        crossed: dict[int, list] = {resource: [] for resource in links}
        for key, (_, loads) in groups.items():
            for number in key[1]:
                met[number].append(together[key])
            for way, resource, flows in loads:
                crossed[resource].append((way, flows, together[key]))
        found = {number: colour(shade, _sorted(met[number])) for number, shade in found.items()}
        links = {resource: colour(shade, _sorted(crossed[resource])) for resource, shade in links.items()}
        if (len({*found.values()}), len({*links.values()})) == before:
            break
    return [found[member.number] for member in members]


def _sorted(values: Iterable) -> tuple:
    return tuple(sorted(values))


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


def teams(costs: Sequence[ClassCosts], kinds: Iterable[str]) -> list[Team]:
    """The team of each class: all classes that it meets in its passes, directly or through others."""
    kinds = tuple(kinds)
    team = list(range(len(costs)))

    def root(number: int) -> int:
        while team[number] != number:
            team[number] = team[team[number]]
            number = team[number]
        return number

    for member in costs:
        for kind in kinds:
            if kind in member.groups:
                for other in member.groups[kind].classes:
                    low, high = sorted((root(member.number), root(other)))
                    team[high] = low
    members: dict[int, list[ClassCosts]] = {}
    for member in costs:
        members.setdefault(root(member.number), []).append(member)
    made = {number: Team(tuple(found), kinds) for number, found in members.items()}
    return [made[root(number)] for number in range(len(costs))]
