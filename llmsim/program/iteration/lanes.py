"""The lanes of every rank class for one or more training iterations."""

from collections import Counter
from dataclasses import dataclass, field, replace

from llmsim.engine.plan import Fragment, Item, Lane, Plan
from llmsim.model.work import Step
from llmsim.parallel.schedules.order import Schedule
from llmsim.program.iteration.data_loading import Loader
from llmsim.program.passes.fragments import Template
from llmsim.program.passes.kernel_launch import Launching, launch_seconds
from llmsim.program.passes.labels import PassTags
from llmsim.program.passes.stage_transfers import Boundary
from llmsim.program.passes.templates import PassTemplates, Piece, Wanted
from llmsim.program.stages.options import Options
from llmsim.program.stages.parameter_update import Closing
from llmsim.program.stages.stage import StageProgram


@dataclass(slots=True)
class ClassProgram:
    """Lays out the lanes of one rank class."""

    plan: Plan
    tags: PassTags
    schedule: Schedule
    stages: dict[tuple[int, int], StageProgram]  # (direction, virtual stage) -> program, of this rank
    options: Options
    closing: Closing
    boundary: Boundary
    templates: PassTemplates
    loader: Loader | None = None
    launching: Launching | None = None  # None: the host is always ahead
    lanes: dict[str, list[Item]] = field(default_factory=dict)
    crossed: bool = False  # whether gradients are on their way over links that passes use

    def build(self) -> list[Lane]:
        for iteration in range(self.options.iterations):
            self._iteration(iteration)
        return [Lane(self.boundary.costs.number, name, items) for name, items in self.lanes.items()]

    # One iteration -------------------------------------------------------------------------------------------------

    def _iteration(self, iteration: int) -> None:
        gathered = self._gather_early(iteration)
        order = self.schedule.orders[self.boundary.stage]
        last_use = {(op[1], op[2]): index for index, op in enumerate(_gradient_ops(order)) if op is not None}
        first_use: set[tuple[int, int]] = set()
        reduced: list[int] = []
        for index, op in enumerate(order):
            if op[0] == "FB":
                self._overlapped(op, iteration, gathered, first_use, last_use.get((op[4], op[5])) == index, reduced)
                continue
            kind, direction, stage, micro_batch = op
            if kind == "F":
                fresh = (direction, stage) not in first_use
                first_use.add((direction, stage))
                waits = gathered.get((direction, stage), ()) if fresh else ()
                (piece,) = self.templates.pieces(self._wanted_forward(direction, stage, fresh))
                self._forward(piece.template, direction, stage, micro_batch, iteration, waits)
            else:
                wanted = self._wanted_backward(kind, direction, stage, last_use.get((direction, stage)) == index)
                self._backward(wanted, self.templates.pieces(wanted), micro_batch, iteration, reduced)
        self._finish(iteration, reduced)
        self.crossed = False

    def _wanted_forward(self, d: int, s: int, fresh: bool) -> Wanted:
        """`fresh`: the first forward of this virtual stage in the iteration."""
        return Wanted("F", d, s, gather=fresh or self._reshards, apart=self.crossed)

    def _wanted_backward(self, kind: str, d: int, s: int, last: bool) -> Wanted:
        """`last`: of this virtual stage in the iteration. Cut where each bucket is reduced beside the next one."""
        makes_gradients = kind != "B" and (last or not self.options.accumulate_locally)
        if self.options.sharding is not None:
            return Wanted(kind, d, s, scatter=makes_gradients, gather=self._reshards)
        cut = makes_gradients and self._reduces and self.options.overlap_reduce and bool(self.stages[d, s].parameters)
        self.crossed = self.crossed or (cut and self.templates.crossed(d, s))
        return Wanted(kind, d, s, cut=cut, apart=self.crossed)

    @property
    def _reduces(self) -> bool:
        return self.options.sharding is None and (self.closing.reducing or self.closing.on_cpu)

    def _forward(self, template: Template, d: int, s: int, i: int, iteration: int, waits: tuple[int, ...]) -> None:
        tag = self.tags.number(d, s, i, iteration)
        sent = self.boundary.send(self.lanes, "F", d, s, i, iteration, tag)
        waits = (*waits, *self.boundary.arrival("F", d, s, i, iteration))
        if s == 0 and self.loader is not None:
            waits = (*waits, self.loader.place(self.lanes, "compute", tag))
        self._place(template, tag, waits, sent, "compute")

    @property
    def _reshards(self) -> bool:
        return self.options.sharding is None or self.options.sharding.reshard

    def _backward(
        self,
        wanted: Wanted,
        pieces: tuple[Piece, ...],
        i: int,
        iteration: int,
        reduced: list[int],
        lane: str = "compute",
    ) -> None:
        kind, d, s = wanted.kind, wanted.direction, wanted.stage
        tag = self.tags.number(d, s, i, iteration)
        waits, sent = (), ()
        if kind != "W":
            waits = self.boundary.arrival("B", d, s, i, iteration)
            sent = self.boundary.send(self.lanes, "B", d, s, i, iteration, tag)
        for piece in pieces:
            ready = (self.plan.new_signal(),) if piece.followed else ()
            fired = tuple((signal, 0.0) for signal in ready)
            self._place(piece.template, tag, waits, sent if piece is pieces[-1] else (), lane, fired)
            self._follow(piece.followed, tag, ready, reduced)
            waits = ()
        if self._reduces and kind != "B" and not wanted.cut and not self.options.accumulate_locally:
            template = self.templates.reduced_at_once(d, s).in_lane(lane)
            template.place(self.plan, self.lanes, tag)  # computation waits for it

    def _follow(self, templates: tuple[Template, ...], tag: int, waits: tuple[int, ...], reduced: list[int]) -> None:
        """One after the other behind a piece of a pass."""
        for template in templates:
            signal = self.plan.new_signal()
            template.place(self.plan, self.lanes, tag, waits, ((signal, 0.0),))
            reduced.append(signal)
            waits = (signal,)

    def _overlapped(
        self, op: tuple, iteration: int, gathered: dict, first_use: set, last: bool, reduced: list[int]
    ) -> None:
        """A forward and a backward of different micro-batches side by side; they share the GPU while both compute."""
        _, df, sf, i_f, db, sb, ib = op
        fresh = (df, sf) not in first_use
        first_use.add((df, sf))
        begin, ended = self.plan.new_signal(), self.plan.new_signal()
        ready = (
            *self.boundary.arrival("F", df, sf, i_f, iteration),
            *self.boundary.arrival("B", db, sb, ib, iteration),
        )
        compute = self.lanes.setdefault("compute", [])
        compute.append(Item(Fragment(()), 0, 0, ready, ((begin, 0.0),)))
        waits = gathered.get((df, sf), ()) if fresh else ()
        wanted = self._wanted_backward("BW", db, sb, last)
        together = not waits and self.launching is None and (self.loader is None or sf > 0)
        first, second = self.templates.beside(self._wanted_forward(df, sf, fresh), wanted, together)
        self._forward(first[0].template, df, sf, i_f, iteration, waits)
        self.lanes.setdefault("beside", []).append(Item(Fragment(()), 0, 0, (begin,)))
        self._backward(wanted, second, ib, iteration, reduced, "beside")
        self.lanes["beside"].append(Item(Fragment(()), 0, 0, (), ((ended, 0.0),)))
        compute.append(Item(Fragment(()), 0, 0, (ended,)))

    # Placing a pass ------------------------------------------------------------------------------------------------

    def _place(
        self, template: Template, tag: int, waits: tuple, sent: tuple[int, ...], lane: str, signals: tuple = ()
    ) -> None:
        """sent: as `Boundary.send` gives it; signals: others that fire when the pass is done."""
        if sent:
            signals = ((sent[0], 0.0), *signals)
        self._place_launched(template.in_lane(lane), tag, waits, signals, lane)
        if len(sent) > 1:
            # A blocking send: computation goes on when it is over.
            over = sent[1:]
            self.lanes[lane].append(Item(Fragment(()), tag, 0, over))
            if self.launching is not None:
                self.launching.held += over

    def _place_launched(self, template: Template, tag: int, waits: tuple, signals: tuple, lane: str) -> None:
        """Place what the host launches: it begins when the host has come to it, and ends no earlier than its launch."""
        if self.launching is None:
            template.place(self.plan, self.lanes, tag, waits, signals)
            return
        waits, launched = self.launching.place(self.lanes, template, tag, waits)
        template.place(self.plan, self.lanes, tag, waits)
        self.lanes[lane].append(Item(Fragment(()), tag, 0, (launched,), signals))

    # Before and after the passes -----------------------------------------------------------------------------------

    def _gather_early(self, iteration: int) -> dict[tuple[int, int], tuple[int, ...]]:
        """Overlapped parameter gathering: stage by stage at the start of the iteration, awaited by first forwards."""
        if self.options.sharding or not self.options.sharded_optimizer or not self.options.overlap_gather:
            return {}
        if self.closing.degrees["dp"] == 1:
            return {}
        result = {}
        tag = self.tags.between(iteration)
        for key in sorted(self.stages, key=lambda key: key[1]):
            steps = self.closing.gathers(self.stages[key].total)
            signal = self.plan.new_signal()
            self.templates.serial(steps, "dp").place(self.plan, self.lanes, tag, (), ((signal, 0.0),))
            result[key] = (signal,)
        return result

    def _finish(self, iteration: int, reduced: list[int]) -> None:
        """Gradient reduction that did not overlap, tied embeddings, norm over the whole model, update, gathering."""
        tag = self.tags.between(iteration)
        stages = [stage.total for stage in self.stages.values()]
        parts = sum(len(stage.parameters) for stage in self.stages.values())
        matrices = sum((stage.matrices for stage in self.stages.values()), Counter())
        steps = self.closing.steps(stages, parts, matrices)
        template = self.templates.serial(steps, "compute")
        if self.launching is not None:
            cost, tensors = self.launching.cost, self.closing.tensors(parts)
            template = replace(template, phase="update", launch=launch_seconds(steps, cost) + tensors * cost.tensor)
        buckets = self.closing.cpu_buckets(stages, parts)
        if not buckets:
            self._place_launched(template, tag, tuple(reduced), (), "compute")
            return
        normed = self.plan.new_signal()
        self._place_launched(template, tag, tuple(reduced), ((normed, 0.0),), "compute")
        done = [self._on_cpu(update, back, tag, normed) for update, back in buckets]
        gather = self.templates.serial(self.closing.last_gather(stages), "compute")
        gather.place(self.plan, self.lanes, tag, tuple(done))

    def _on_cpu(self, update: Step, back: Step | None, tag: int, begin: int) -> int:
        """One bucket updated on the CPU and copied back; the signal that it is."""
        for step, lane in ((update, "cpu"), (back, "prefetch")):
            if step is not None:
                done = self.plan.new_signal()
                self.templates.serial([step], lane).place(self.plan, self.lanes, tag, (begin,), ((done, 0.0),))
                begin = done
        return begin


def _gradient_ops(order: tuple) -> list:
    """For each op of an order the (kind, direction, stage, …) that makes weight gradients, None for the others."""
    made = []
    for op in order:
        if op[0] == "FB":
            made.append(("BW", *op[4:]))
        else:
            made.append(op if op[0] in ("BW", "W") else None)
    return made
