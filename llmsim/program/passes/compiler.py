"""Compiles passes for one rank class: kernel by kernel, or (`detail: block`) as one op measured beforehand.

Equal layers are measured once: a block of a plain pass is the sum of its layers, each played alone by the engine.
Passes that run beside each other are measured together, since each computes while the other communicates.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llmsim.catalogue.host_constants import HostCost
from llmsim.engine.measure import measure
from llmsim.engine.plan import Fragment, Item, Op, Part, Plan
from llmsim.engine.rates import pace_of
from llmsim.model.work import Step
from llmsim.program.passes.block import NOTHING, Block, in_series, together
from llmsim.program.passes.fragments import Template, compile_template
from llmsim.program.passes.kernel_launch import launch_seconds
from llmsim.program.passes.labels import Label
from llmsim.program.passes.lockstep import Team
from llmsim.program.passes.op_costs import ClassCosts, resources_of
from llmsim.program.passes.precedence import hidden_seconds, pass_seconds
from llmsim.program.stages.pass_steps import Pass


@dataclass(slots=True)
class PassCompiler:
    """Templates of one class. `known` is shared by all classes: blocks of equal steps under equal costs."""

    costs: ClassCosts
    team: Team
    blocks: bool
    signature: int  # number of team.signature
    known: dict = field(default_factory=dict)
    host: HostCost = field(default_factory=HostCost)

    @property
    def whole(self) -> bool:
        """Whether passes are blocks."""
        return self.blocks and self.team.alike

    def crossed_by(self, steps: Sequence[Step]) -> bool:
        """Whether steps of some member use links that passes use; the members decide alike, since their passes meet.

        That is why one answer, kept in `known`, serves the whole team: without it a team of many classes would look
        at each of them as often as it has members.
        """
        key = ("crossed", self.team.members[0].number, *steps)
        if key not in self.known:
            self.known[key] = any(self._crosses(member, step) for member in self.team.members for step in steps)
        return self.known[key]

    def _crosses(self, member: ClassCosts, step: Step) -> bool:
        links = self.team.links
        return any(resource in links for part in member.parts(step) for resource, _ in part.demands)

    def compile(self, work: Pass, name: str, phase: str, apart: bool = False) -> Template:
        """The template of a pass; `name` and `phase` are what its block is called in the trace.

        apart: kernel by kernel in any case, since what runs beside it is not known.
        """
        template = self._compile(work, name, phase, apart)
        if self.host.free:
            return template
        steps = (step for _, part in work.parts for step in part)
        return replace(template, launch=launch_seconds(steps, self.host), phase=phase)

    def compile_beside(
        self, forward: Pass, backward: Sequence[Pass], called: Sequence[tuple[str, str]]
    ) -> list[Template]:
        """Blocks of a forward pass and of the pieces of a backward pass that begin together, in lanes of their own.

        called: name and phase of the forward and of the backward.
        """
        runs = [tuple(work.flat()[0]) for work in (forward, *backward)]
        if not any(runs):
            return [NOTHING for _ in runs]
        key = (self.signature, "beside", *runs)
        if key not in self.known:
            self.known[key] = self._measure([runs[:1], runs[1:]])
        names = [called[0], *(called[1] for _ in backward)]
        return [self._template(block, *name) for block, name in zip(self.known[key], names)]

    def _compile(self, work: Pass, name: str, phase: str, apart: bool) -> Template:
        if not any(steps for _, steps in work.parts):  # a stage without layers passes on what it gets
            return NOTHING
        if self.whole and not apart:
            if work.closed:
                # Layers come as the same tuples again and again; comparing their steps would take longer than the rest.
                parts = [self._block(steps, id(steps)) for _, steps in work.parts if steps]
            else:
                steps = tuple(work.flat()[0])
                parts = [self._block(steps, steps)]
            return self._template(in_series(parts), name, phase)
        steps, layers = work.flat()
        return compile_template(steps, lambda i, lane: self.costs.op(steps[i], lane, layers[i]))

    def _template(self, block: Block, name: str, phase: str) -> Template:
        resources = self.team.resources
        if not block.seconds:  # no steps
            return NOTHING
        label = Label(
            name, "compute", "compute", phase, flops=block.flops, peak_seconds=block.peak_seconds, bytes=block.bytes,
            shares=block.shares, sent=block.sent, hidden=block.hidden,
        )  # fmt: skip
        demands = tuple((resources[place], amount) for place, amount in block.demands)
        meeting = self.costs.meeting("pass", tuple(member.number for member in self.team.members))
        own, capacities = resources_of(self.costs.number), self.costs.plan.capacities
        pace = pace_of(amount / capacities[resource] for resource, amount in demands if resource in own)
        op = Op(self.costs.labels.number(label), (Part(1, 0.0, block.seconds, demands, pace),), meeting)
        return Template((("compute", Fragment((op,))),), 0)

    def _block(self, steps: tuple[Step, ...], name: Hashable) -> Block:
        key = (self.signature, name)
        if key not in self.known:
            self.known[key] = (self._measure([[steps]]), steps)  # holding the steps keeps their id taken
        return self.known[key][0][0]

    def _measure(self, runs: Sequence[Sequence[tuple[Step, ...]]]) -> list[Block]:
        """Blocks of all passes of these runs, each run a series of passes in a lane of its own, begun together."""
        capacities, labels = self.costs.plan.capacities, self.costs.labels.values
        plan, lanes = Plan(capacities=capacities), dict[str, list[Item]]()
        tagged = [(lane, steps) for lane, run in zip(("compute", "beside"), runs) for steps in run]
        for tag, (lane, steps) in enumerate(tagged):
            template = compile_template(steps, lambda i, lane, steps=steps: self.team.op(steps[i], lane))
            template.in_lane(lane).place(plan, lanes, tag)
        measured = measure(capacities, lanes, plan.signals)
        begin, spans = {lane: 0.0 for lane, _ in tagged}, []  # a pass without steps leaves its lane empty
        for tag, (lane, _) in enumerate(tagged):
            spans.append((begin[lane], max(begin[lane], measured.end(tag))))
            begin[lane] = spans[-1][1]
        demands = [
            {r: min(amount / (end - start), capacities[r]) for r, amount in measured.used.get(tag, {}).items()}
            if end > start
            else {}
            for tag, (start, end) in enumerate(spans)
        ]
        _fit(demands, capacities)
        # Passes beside each other share their seconds; what those are spent on is said of both together.
        category = np.array([label.category for label in labels])
        seconds = pass_seconds(measured.rows, category, 0.0, max(end for _, end in spans))
        groups = np.array([label.group for label in labels])
        beside = hidden_seconds(measured.rows, category, groups)
        hidden = tuple((name, *beside[name]) for name in sorted(beside))
        shares = tuple((seconds / seconds.sum()).tolist()) if seconds.any() else tuple(seconds.tolist())
        place = {resource: index for index, resource in enumerate(self.team.resources)}
        blocks = []
        for tag, (start, end) in enumerate(spans):
            rows = {name: found[found[:, 1] == tag] for name, found in measured.rows.items()}
            used = [labels[int(row[0])] for found in rows.values() for row in found]
            blocks.append(
                Block(
                    end - start,
                    tuple((place[resource], amount) for resource, amount in sorted(demands[tag].items())),
                    shares,
                    sum(label.flops for label in used),
                    sum(label.peak_seconds for label in used),
                    sum(label.bytes for label in used),
                    together(label.sent for label in used),
                    () if tag else hidden,
                )
            )
        return blocks


def _fit(demands: list[dict[int, float]], capacities: Sequence[float]) -> None:
    """Scale what a pass and those beside it demand to what there is: their sharing is in the measured times already."""
    first, others = demands[0], demands[1:]
    for resource, amount in first.items():
        asked = amount + max((other.get(resource, 0.0) for other in others), default=0.0)
        if asked > capacities[resource]:
            for each in demands:
                if resource in each:
                    each[resource] *= capacities[resource] / asked
