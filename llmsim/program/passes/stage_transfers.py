"""What passes between pipeline stages: activations forward, gradients back, and the signals that they have arrived."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmsim.engine.plan import Fragment, Item, Plan
from llmsim.errors import UserError
from llmsim.model.work import Communication, Step
from llmsim.parallel.schedules.order import Schedule
from llmsim.program.passes.fragments import Template
from llmsim.program.passes.op_costs import ClassCosts
from llmsim.program.stages.options import Options

Lanes = dict[str, list[Item]]


@dataclass(frozen=True)
class Arrivals:
    """The signals that what a pass waits for has come from another stage: one for each pass of each class.

    bases: the first one of each class.
    """

    schedule: Schedule
    iterations: int
    bases: Sequence[int]

    @classmethod
    def reserved(cls, plan: Plan, schedule: Schedule, iterations: int, stage_of: Sequence[int]) -> "Arrivals":
        """With signals of the plan for classes of these stages."""
        held = Counter(rank for ranks in schedule.placement for rank in ranks)
        each = 2 * schedule.micro_batches_of_direction * iterations
        return cls(schedule, iterations, [plan.new_signals(held[stage] * each) for stage in stage_of])

    def first(self, number: int, kind: str, direction: int, stage: int) -> int:
        """The signal of micro-batch 0 in iteration 0; those of the next micro-batches follow, `iterations` for each."""
        place = 2 * self.schedule.chunk_of(direction, stage) + (kind == "B")
        return self.bases[number] + place * self.schedule.micro_batches_of_direction * self.iterations


@dataclass(frozen=True, slots=True)
class _Crossing:
    """What a pass takes and gives: first signals of its arrival and of its peer's, and the send; None without one."""

    arrival: int | None
    send: Template | None
    arrived: int


@dataclass(slots=True)
class Boundary:
    """The stage of one rank class among its neighbours. `peers`: the class of the next and of the previous one."""

    plan: Plan
    costs: ClassCosts
    schedule: Schedule
    stage: int
    options: Options
    peers: dict[str, int]
    arrivals: Arrivals
    _known: dict[tuple[str, int, int], _Crossing] = field(default_factory=dict)

    def receives(self, kind: str, d: int, s: int) -> bool:
        """Whether a pass of this kind takes what another rank sends."""
        return self._neighbour(d, s - 1 if kind == "F" else s + 1) is not None

    def arrival(self, kind: str, d: int, s: int, i: int, iteration: int) -> tuple[int, ...]:
        """The signal that the pass F or B of micro-batch i waits for, if it waits for another rank."""
        first = self._crossing(kind, d, s).arrival
        return () if first is None else (first + i * self.arrivals.iterations + iteration,)

    def send(self, lanes: Lanes, kind: str, d: int, s: int, i: int, iteration: int, tag: int) -> tuple[int, ...]:
        """Lay out the send of what a pass makes.

        Returns the signal that the pass must fire, and behind it, where the send blocks its sender, the one that it is
        over; nothing without a send.
        """
        crossing = self._crossing(kind, d, s)
        if crossing.send is None:
            return ()
        done = self.plan.new_signal()
        arrived = crossing.arrived + i * self.arrivals.iterations + iteration
        if self.options.overlap_pipeline:
            crossing.send.place(self.plan, lanes, tag, (done,), ((arrived, 0.0),))
            return (done,)
        over = self.plan.new_signal()
        crossing.send.place(self.plan, lanes, tag, (done,), ((arrived, 0.0), (over, 0.0)))
        return done, over

    def _crossing(self, kind: str, d: int, s: int) -> _Crossing:
        key = (kind, d, s)
        if key not in self._known:
            self._known[key] = self._made(kind, d, s)
        return self._known[key]

    def _made(self, kind: str, d: int, s: int) -> _Crossing:
        arrival = None
        if self.receives(kind, d, s) and self.options.waiting:
            arrival = self.arrivals.first(self.costs.number, kind, d, s)
        target = s + 1 if kind == "F" else s - 1
        to = self._neighbour(d, target)
        if to is None:
            return _Crossing(arrival, None, 0)
        way = self._way(to, kind == "F")
        name, phase = ("send activation", "forward") if kind == "F" else ("send gradient", "backward")
        step = Step(name, Communication("send_recv", f"pp_{way}", self.options.boundary_bytes), "pp_send", phase)
        op = self.costs.op(step, "pp_send", -1, peer=self.peers[way])
        template = Template((("pp_send", Fragment((op,))),), 0)
        return _Crossing(arrival, template, self.arrivals.first(self.peers[way], kind, d, target))

    def _neighbour(self, d: int, s: int) -> int | None:
        """The pipeline rank of a virtual stage that is on another rank, None on this one or outside the pipeline."""
        if not 0 <= s < self.schedule.virtual_stages:
            return None
        rank = self.schedule.rank_of(d, s)
        return None if rank == self.stage else rank

    def _way(self, to: int, forward: bool) -> str:
        """Which neighbour a stage's rank is; with two stages both neighbours are the same rank."""
        stages = self.schedule.stages
        after, before = to == (self.stage + 1) % stages, to == (self.stage - 1) % stages
        if not after and not before:
            raise UserError(f"stages {self.stage} and {to} pass activations, but are not neighbours in the pipeline")
        return "next" if after and (forward or not before) else "prev"
