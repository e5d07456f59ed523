"""Turns the steps of a rank class into ops: kernels by the GPU's cost model, communications by their group's phases."""

from dataclasses import dataclass, field

from llmsim.collectives import Group, plan_collective, plan_dispatch
from llmsim.cost.kernels import KernelCosts
from llmsim.engine.plan import Op, Part, Plan
from llmsim.engine.rates import COMMUNICATION_WEIGHT, feasible, pace_of
from llmsim.model.work import Communication, HostCopy, HostUpdate, HostWait, Step
from llmsim.program.passes.host_copies import host_part
from llmsim.program.passes.labels import Label, Numbered
from llmsim.program.what_if import AS_IS, WhatIf


@dataclass(frozen=True, slots=True)
class ClassGroup:
    """One group as a rank class sees it: its numbers, the classes in it, and what its traffic loads.

    `intra` and `inter` are (resource, flows): how many of the members' flows cross the resource at once.
    """

    kind: str
    group: Group
    classes: tuple[int, ...]
    intra: tuple[tuple[int, float], ...]
    inter: tuple[tuple[int, float], ...]
    latency: float = 0.0


@dataclass(slots=True)
class ClassCosts:
    """Ops of one rank class. `sm` and `hbm` map a class to its resources."""

    plan: Plan
    labels: Numbered
    kernels: KernelCosts
    number: int
    groups: dict[str, ClassGroup]
    meetings: dict[tuple, int]
    clock: int | None = None  # resource that each kernel of a slow GPU needs in full
    what_if: WhatIf = AS_IS
    known: dict[tuple, tuple[Part, ...]] = field(default_factory=dict)  # costs of communications, of all classes

    def op(self, step: Step, lane: str, layer: int, *, kind: str | None = None, peer: int = -1) -> Op:
        """The op of a step played in `lane`."""
        work = step.work
        if isinstance(work, Communication):
            return self._communication(step, work, lane, layer, peer)
        if isinstance(work, HostCopy | HostUpdate):
            return self._outside(step, work, layer)
        time = self.kernels.time(work)
        sm, hbm = resources_of(self.number)
        demands = ((sm, time.sm), (hbm, time.hbm))
        pace = pace_of((amount / self.plan.capacities[resource] for resource, amount in demands))
        if self.clock is not None:
            demands = (*demands, (self.clock, 1.0))
        part = feasible(Part(1, time.launch, time.seconds, demands, pace), self.plan.capacities)
        kind = "host" if isinstance(work, HostWait) else kind or "compute"
        peak = self.kernels.at_peak(work)
        label = Label(step.name, kind, step.stream, step.phase, layer, "", time.flops, peak, time.bytes)
        return Op(self.labels.number(label), (part,))

    def parts(self, step: Step) -> tuple[Part, ...]:
        """What a communication, or what is done outside the GPU, takes of which resources."""
        if isinstance(step.work, Communication):
            return self._communicated(step.work)
        return (self._outside_part(step.work),)

    def _outside_part(self, work: HostCopy | HostUpdate) -> Part:
        return feasible(host_part(work, self.groups, self.plan.capacities), self.plan.capacities)

    def _outside(self, step: Step, work: HostCopy | HostUpdate, layer: int) -> Op:
        """A copy or an update outside the GPU; copies leave its memory bandwidth alone, which is far higher."""
        part = self._outside_part(work)
        label = Label(step.name, "offload", step.stream, step.phase, layer, bytes=work.bytes)
        return Op(self.labels.number(label), (part,))

    def _communicated(self, work: Communication) -> tuple[Part, ...]:
        place = self.groups[work.group]
        key = (place.kind, place.classes, place.group, work.operation, work.size, work.once)
        parts = self.known.get(key)
        if parts is None:
            parts = self.known[key] = self._parts(place, work)
        return parts

    def _communication(self, step: Step, work: Communication, lane: str, layer: int, peer: int) -> Op:
        place, parts = self.groups[work.group], self._communicated(work)
        meeting = self.meeting(place.kind, place.classes) if place.group.ranks > 1 else -1
        kind = "p2p" if work.operation == "send_recv" else "collective"
        size, sent = float(work.size), self._sent(place, work)
        label = Label(step.name, kind, step.stream, step.phase, layer, work.group, bytes=size, peer=peer, sent=sent)
        return Op(self.labels.number(label), parts, meeting)

    @staticmethod
    def _sent(place: ClassGroup, work: Communication) -> tuple[tuple[str, float, float], ...]:
        phases = plan_collective(work.operation, float(work.size), place.group).phases
        inside = sum(phase.repeat * phase.intra_bytes for phase in phases)
        outside = sum(phase.repeat * phase.inter_bytes for phase in phases)
        return ((place.kind, inside, outside),) if phases else ()

    def _parts(self, place: ClassGroup, work: Communication) -> tuple[Part, ...]:
        if work.once is None:
            collective = plan_collective(work.operation, float(work.size), place.group)
        else:
            collective = plan_dispatch(float(work.size), place.group, work.once.copies, work.once.nodes)
        faster = self.what_if.between if place.group.nodes > 1 else self.what_if.inside
        parts = []
        for phase in collective.phases:
            demands: dict[int, float] = {}
            shares = [0.0]  # of the resources, what one member needs
            if phase.seconds > 0:
                members = [resources_of(member) for member in place.classes if self.what_if.interference]
                rates = (
                    (place.intra, phase.intra_bytes / phase.seconds),
                    (place.inter, phase.inter_bytes / phase.seconds),
                    ([(sm, 1.0) for sm, _ in members], phase.sms / self.kernels.gpu.sms),
                    ([(hbm, 1.0) for _, hbm in members], phase.hbm_bytes / phase.seconds),
                )
                for uses, rate in rates:
                    if rate > 0:
                        for resource, flows in uses:
                            demands[resource] = demands.get(resource, 0.0) + flows * rate
                            shares.append(rate / self.plan.capacities[resource])
            latency, seconds = phase.latency / self.what_if.latency, phase.seconds / faster
            pace = COMMUNICATION_WEIGHT * pace_of(shares)
            part = Part(phase.repeat, latency, seconds, tuple(demands.items()), pace)
            parts.append(feasible(part, self.plan.capacities))
        return tuple(parts) or (Part(1, 0.0, 0.0),)  # a group of one rank, or nothing to send

    def meeting(self, kind: str, classes: tuple[int, ...]) -> int:
        """Where the classes of a group wait for one another; -1 for a class alone."""
        if len(classes) == 1:
            return -1
        key = (kind, classes)
        if key not in self.meetings:
            self.meetings[key] = len(self.plan.meetings)
            self.plan.meetings.append(len(classes))
        return self.meetings[key]


def resources_of(number: int) -> tuple[int, int]:
    """The SM pool (capacity 1 = all SMs) and the HBM (bytes/s) of a rank class."""
    return 2 * number, 2 * number + 1
