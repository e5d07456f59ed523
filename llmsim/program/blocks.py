"""Compiles passes for one rank class: kernel by kernel, or (`detail: block`) as one op measured beforehand.

Equal layers are measured once: a block of a plain pass is the sum of its layers, each played alone by the engine.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from llmsim.catalogue.host_constants import HostCost
from llmsim.engine.blocks import Measured, measure
from llmsim.engine.ledger import attribute, gaps
from llmsim.engine.plan import Fragment, Item, Op, Part, Plan
from llmsim.model.work import Step
from llmsim.program.costs import ClassCosts, pace_of, resources_of
from llmsim.program.host import launch_seconds
from llmsim.program.labels import CATEGORIES, Label
from llmsim.program.passes import Pass
from llmsim.program.team import Team
from llmsim.program.template import Template, compile_template


@dataclass(frozen=True, slots=True)
class Block:
    """A run of steps played alone. Demands are by place in the class's list of resources; shares add up to 1."""

    seconds: float
    demands: tuple[tuple[int, float], ...]
    shares: tuple[float, ...]  # seconds of each of CATEGORIES, then idle
    flops: float
    bytes: float
    sent: tuple[tuple[str, float, float], ...]  # as `Label.sent`


@dataclass(slots=True)
class PassCompiler:
    """Templates of one class. `known` is shared by all classes: blocks of equal steps under equal costs."""

    costs: ClassCosts
    team: Team
    blocks: bool
    signature: int  # number of team.signature
    known: dict = field(default_factory=dict)
    host: HostCost = field(default_factory=HostCost)

    def compile(self, work: Pass, name: str, phase: str) -> Template:
        """The template of a pass; `name` and `phase` are what its block is called in the trace."""
        template = self._compile(work, name, phase)
        if self.host.free:
            return template
        steps = (step for _, part in work.parts for step in part)
        return replace(template, launch=launch_seconds(steps, self.host), phase=phase)

    def _compile(self, work: Pass, name: str, phase: str) -> Template:
        if not any(steps for _, steps in work.parts):  # a stage without layers passes on what it gets
            return Template((("compute", Fragment(())),), 0)
        if self.blocks and self.team.alike:
            if work.closed:
                # Layers come as the same tuples again and again; comparing their steps would take longer than the rest.
                parts = [self._block(steps, id(steps)) for _, steps in work.parts if steps]
            else:
                steps = tuple(work.flat()[0])
                parts = [self._block(steps, steps)]
            op = self._op(_in_series(parts), name, phase)
            return Template((("compute", Fragment((op,))),), 0)
        steps, layers = work.flat()
        return compile_template(steps, lambda i, lane: self.costs.op(steps[i], lane, layers[i]))

    def _op(self, block: Block, name: str, phase: str) -> Op:
        resources = self.team.resources
        label = Label(name, "compute", "compute", phase, -1, "", block.flops, block.bytes, -1, block.shares, block.sent)
        demands = tuple((resources[place], amount) for place, amount in block.demands)
        meeting = self.costs.meeting("pass", tuple(member.number for member in self.team.members))
        own, capacities = resources_of(self.costs.number), self.costs.plan.capacities
        pace = pace_of(amount / capacities[resource] for resource, amount in demands if resource in own)
        return Op(self.costs.labels.number(label), (Part(1, 0.0, block.seconds, demands, pace),), meeting)

    def _block(self, steps: tuple[Step, ...], name: Hashable) -> Block:
        key = (self.signature, name)
        if key not in self.known:
            self.known[key] = (self._measure(steps), steps)  # holding the steps keeps their id taken
        return self.known[key][0]

    def _measure(self, steps: tuple[Step, ...]) -> Block:
        costs = self.costs
        template = compile_template(steps, lambda i, lane: self.team.op(steps[i], lane))
        plan = Plan(capacities=costs.plan.capacities)
        lanes: dict[str, list[Item]] = {}
        template.place(plan, lanes, 0)
        measured = measure(costs.plan.capacities, lanes, plan.signals)
        place = {resource: index for index, resource in enumerate(self.team.resources)}
        demands = tuple((place[resource], amount) for resource, amount in measured.demands)
        labels = costs.labels.values
        used = [labels[int(row[0])] for rows in measured.rows.values() for row in rows]
        return Block(
            measured.seconds,
            demands,
            _shares(measured, labels),
            sum(label.flops for label in used),
            sum(label.bytes for label in used),
            _together(label.sent for label in used),
        )


def _shares(measured: Measured, labels: list[Label]) -> tuple[float, ...]:
    seconds = np.zeros(len(CATEGORIES) + 1)
    own = measured.rows["compute"]
    category = np.array([labels[int(label)].category for label in own[:, 0]], dtype=int)
    np.add.at(seconds, category, own[:, 3] - own[:, 2])
    free = gaps(own[:, 2], own[:, 3], 0.0, measured.seconds)
    lanes = [name for name in measured.rows if name != "compute"]
    exposed, idle = attribute(*free, [(measured.rows[name][:, 2], measured.rows[name][:, 3]) for name in lanes])
    for name, amount in zip(lanes, exposed):
        rows = measured.rows[name]
        seconds[labels[int(rows[0, 0])].category] += amount
    seconds[-1] += idle
    total = seconds.sum()
    return tuple((seconds / total).tolist()) if total else tuple(seconds.tolist())


def _in_series(blocks: list[Block]) -> Block:
    seconds = sum(block.seconds for block in blocks)
    demands: dict[int, float] = {}
    shares = np.zeros(len(CATEGORIES) + 1)
    for block in blocks:
        weight = block.seconds / seconds if seconds else 0.0
        shares += np.array(block.shares) * weight
        for place, amount in block.demands:
            demands[place] = demands.get(place, 0.0) + amount * weight
    return Block(
        seconds,
        tuple(sorted(demands.items())),
        tuple(shares.tolist()),
        sum(block.flops for block in blocks),
        sum(block.bytes for block in blocks),
        _together(block.sent for block in blocks),
    )


def _together(parts: Iterable[tuple[tuple[str, float, float], ...]]) -> tuple[tuple[str, float, float], ...]:
    total: dict[str, tuple[float, float]] = {}
    for group, inside, outside in (entry for part in parts for entry in part):
        before = total.get(group, (0.0, 0.0))
        total[group] = (before[0] + inside, before[1] + outside)
    return tuple((group, *amounts) for group, amounts in sorted(total.items()))
