"""The lanes of every rank class for one or more training iterations."""

from dataclasses import dataclass, field, replace

from llmsim.engine.plan import Fragment, Item, Lane, Plan
from llmsim.errors import UserError
from llmsim.model.work import Communication, Step
from llmsim.parallel.schedules.order import Schedule
from llmsim.program.blocks import PassCompiler
from llmsim.program.data import Loader
from llmsim.program.fsdp import Sharding, sharded_backward, sharded_forward
from llmsim.program.gradients import Shares, buckets, gather_steps, optimizer_steps, reduction_steps
from llmsim.program.host import Launching, launch_seconds
from llmsim.program.labels import Numbered, Tag
from llmsim.program.passes import Pass, StageSteps
from llmsim.program.template import Template


@dataclass(frozen=True, slots=True)
class Options:
    """How the iteration is run: sizes in bytes, and what overlaps what."""

    boundary_bytes: float  # activation that one rank passes to the next stage
    gather_boundary: float  # bytes that the receiving tp group gathers again; 0: it needs nothing
    grad_bytes: int
    param_bytes: int
    sharded_optimizer: bool
    scatter_gradients: bool  # gradients are reduce-scattered, not all-reduced
    overlap_reduce: bool
    overlap_gather: bool
    overlap_pipeline: bool
    accumulate_locally: bool
    bucket: float  # parameters
    optimizer: str
    fused_optimizer: bool
    unscale: bool  # fp16 gradients are scaled against underflow
    iterations: int
    sharding: Sharding | None = None  # parameters are sharded too (ZeRO-3, FSDP)
    waiting: bool = True  # False: a what-if in which stages do not wait for one another


@dataclass(frozen=True, slots=True)
class StageProgram:
    """One virtual stage: its steps, and the parameters of each of its parts (as `steps.parts`, forward order)."""

    steps: StageSteps
    parameters: tuple[Shares, ...]

    @property
    def total(self) -> Shares:
        return sum(self.parameters, Shares(0.0, 0.0))


@dataclass(frozen=True, slots=True)
class _Sending:
    """A send that blocks its sender: the signal that starts it, and the one that it is over."""

    done: int
    over: int


@dataclass(slots=True)
class ClassProgram:
    """Lays out the lanes of one rank class. `peers` maps a neighbour (`next`, `prev`) to its class."""

    plan: Plan
    tags: Numbered
    compiler: PassCompiler
    schedule: Schedule
    stage: int
    stages: dict[tuple[int, int], StageProgram]  # (direction, virtual stage) -> program, of this rank
    options: Options
    peers: dict[str, int]
    arrivals: dict[tuple, int]  # (class, F|B, direction, virtual stage, micro-batch, iteration) -> signal
    degrees: dict[str, int]
    loader: Loader | None = None
    launching: Launching | None = None  # None: the host is always ahead
    lanes: dict[str, list[Item]] = field(default_factory=dict)
    _sending: "_Sending | None" = None
    _templates: dict[tuple, Template] = field(default_factory=dict)

    def build(self) -> list[Lane]:
        for iteration in range(self.options.iterations):
            self._iteration(iteration)
        return [Lane(self.compiler.costs.number, name, items) for name, items in self.lanes.items()]

    # One iteration -------------------------------------------------------------------------------------------------

    def _iteration(self, iteration: int) -> None:
        gathered = self._gather_early(iteration)
        order = self.schedule.orders[self.stage]
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
                self._forward(direction, stage, micro_batch, iteration, waits, fresh)
            else:
                last = last_use.get((direction, stage)) == index
                self._backward(kind, direction, stage, micro_batch, iteration, last, reduced)
        self._finish(iteration, reduced)

    def _tag(self, direction: int, stage: int, micro_batch: int, iteration: int) -> int:
        per_direction = self.schedule.micro_batches // self.schedule.directions
        chunk = self.schedule.chunk_of(direction, stage)
        return self.tags.number(Tag(micro_batch + direction * per_direction, chunk, iteration))

    def _forward(self, d: int, s: int, i: int, iteration: int, waits: tuple[int, ...], fresh: bool) -> None:
        """`fresh`: the first forward of this virtual stage in the iteration."""
        done = self._handover("F", d, s, s + 1, i, iteration)
        signals = () if done is None else ((done, 0.0),)
        tag = self._tag(d, s, i, iteration)
        waits = (*waits, *self._arrival("F", d, s, s - 1, i, iteration))
        if s == 0 and self.loader is not None:
            waits = (*waits, self.loader.place(self.lanes, "compute", tag))
        self._place(self._template("F", d, s, gather=fresh or self._reshards), tag, waits, signals, "compute")

    @property
    def _reshards(self) -> bool:
        return self.options.sharding is None or self.options.sharding.reshard

    def _backward(
        self, kind: str, d: int, s: int, i: int, iteration: int, last: bool, reduced: list[int], lane: str = "compute"
    ) -> None:
        tag = self._tag(d, s, i, iteration)
        waits = () if kind == "W" else self._arrival("B", d, s, s + 1, i, iteration)
        done = None if kind == "W" else self._handover("B", d, s, s - 1, i, iteration)
        signals = () if done is None else ((done, 0.0),)
        if self.options.sharding is not None:
            scatter = kind != "B" and (last or not self.options.accumulate_locally)
            self._place(self._template(kind, d, s, scatter, self._reshards), tag, waits, signals, lane)
            return
        reduces = kind != "B" and self.degrees["dp"] * self.degrees["edp"] > 1
        overlapped = reduces and self.options.overlap_reduce and (last or not self.options.accumulate_locally)
        if not overlapped or not self.stages[d, s].parameters:
            self._place(self._template(kind, d, s), tag, waits, signals, lane)
            if reduces and not last and not self.options.accumulate_locally:
                self._reduce_now(d, s, tag, reduced)
            return
        program = self.stages[d, s]
        work = _pass(program.steps, kind)
        counts = buckets(tuple(reversed(program.parameters)), self.options.bucket)
        begin = 0
        for number, count in enumerate(counts):
            ready = self.plan.new_signal()
            end = begin + count
            final = signals if end == len(work.parts) else ()
            template = self._cached(
                ("bucket", kind, d, s, number), lambda b=begin, e=end: Pass(work.parts[b:e], work.closed), kind
            )
            self._place(template, tag, waits if begin == 0 else (), (*final, (ready, 0.0)), lane)
            share = sum(tuple(reversed(program.parameters))[begin:end], Shares(0.0, 0.0))
            self._reduce(share, tag, (ready,), reduced)
            begin = end

    def _overlapped(
        self, op: tuple, iteration: int, gathered: dict, first_use: set, last: bool, reduced: list[int]
    ) -> None:
        """A forward and a backward of different micro-batches side by side; they share the GPU while both compute."""
        _, df, sf, i_f, db, sb, ib = op
        fresh = (df, sf) not in first_use
        first_use.add((df, sf))
        begin, ended = self.plan.new_signal(), self.plan.new_signal()
        ready = (
            *self._arrival("F", df, sf, sf - 1, i_f, iteration),
            *self._arrival("B", db, sb, sb + 1, ib, iteration),
        )
        compute = self.lanes.setdefault("compute", [])
        compute.append(Item(Fragment(()), 0, 0, ready, ((begin, 0.0),)))
        self._forward(df, sf, i_f, iteration, gathered.get((df, sf), ()) if fresh else (), fresh)
        self.lanes.setdefault("beside", []).append(Item(Fragment(()), 0, 0, (begin,)))
        self._backward("BW", db, sb, ib, iteration, last, reduced, "beside")
        self.lanes["beside"].append(Item(Fragment(()), 0, 0, (), ((ended, 0.0),)))
        compute.append(Item(Fragment(()), 0, 0, (ended,)))

    # Between stages ------------------------------------------------------------------------------------------------

    def _neighbour(self, d: int, s: int) -> int | None:
        """The pipeline rank of a virtual stage, None outside the pipeline."""
        return self.schedule.rank_of(d, s) if 0 <= s < self.schedule.virtual_stages else None

    def _way(self, to: int, forward: bool) -> str:
        """Which neighbour a stage's rank is; with two stages both neighbours are the same rank."""
        stages = self.schedule.stages
        after, before = to == (self.stage + 1) % stages, to == (self.stage - 1) % stages
        if not after and not before:
            raise UserError(f"stages {self.stage} and {to} pass activations, but are not neighbours in the pipeline")
        return "next" if after and (forward or not before) else "prev"

    def _arrival(self, kind: str, d: int, s: int, source: int, i: int, iteration: int) -> tuple[int, ...]:
        rank = self._neighbour(d, source)
        if rank is None or rank == self.stage or not self.options.waiting:
            return ()
        return (self._arrival_signal(self.compiler.costs.number, kind, d, s, i, iteration),)

    def _arrival_signal(self, number: int, *key: object) -> int:
        key = (number, *key)
        if key not in self.arrivals:
            self.arrivals[key] = self.plan.new_signal()
        return self.arrivals[key]

    def _handover(self, kind: str, d: int, s: int, target: int, i: int, iteration: int) -> int | None:
        """Lay out the send of what a pass makes; returns the signal that the pass must fire, None without a send."""
        rank = self._neighbour(d, target)
        if rank is None or rank == self.stage:
            return None
        way = self._way(rank, kind == "F")
        peer = self.peers[way]
        done = self.plan.new_signal()
        arrived = self._arrival_signal(peer, kind, d, target, i, iteration)
        name = "send activation" if kind == "F" else "send gradient"
        signals = [(arrived, 0.0)]
        if not self.options.overlap_pipeline:
            over = self.plan.new_signal()
            signals.append((over, 0.0))
            self._sending = _Sending(done, over)
        template = self._send(way, name, peer)
        template.place(self.plan, self.lanes, self._tag(d, s, i, iteration), (done,), tuple(signals))
        return done

    def _send(self, way: str, name: str, peer: int) -> Template:
        key = ("send", way, name)
        if key not in self._templates:
            phase = "forward" if name == "send activation" else "backward"
            work = Communication("send_recv", f"pp_{way}", self.options.boundary_bytes)
            step = Step(name, work, "pp_send", phase)
            op = self.compiler.costs.op(step, "pp_send", -1, peer=peer)
            self._templates[key] = Template((("pp_send", Fragment((op,))),), 0)
        return self._templates[key]

    # Passes --------------------------------------------------------------------------------------------------------

    def _template(self, kind: str, d: int, s: int, scatter: bool = False, gather: bool = True) -> Template:
        def work() -> Pass:
            made, parameters = _pass(self.stages[d, s].steps, kind), self.stages[d, s].parameters
            parameters = parameters if kind == "F" else parameters[::-1]
            source = s - 1 if kind == "F" else s + 1
            received = kind != "W" and self._neighbour(d, source) not in (None, self.stage)
            if self.options.gather_boundary and received:
                again = Communication("all_gather", "tp", self.options.gather_boundary)
                phase = "forward" if kind == "F" else "backward"
                made = Pass(((-1, (Step("gather received", again, "tp", phase),)), *made.parts))
                parameters = (Shares(0.0, 0.0), *parameters)
            return self._sharded(made, parameters, kind, scatter, gather)

        return self._cached((kind, d, s, scatter, gather), work, kind)

    def _sharded(
        self, work: Pass, parameters: tuple[Shares, ...], kind: str, scatter: bool, gather: bool
    ) -> Pass:
        """The pass with its parameters gathered and its gradients scattered, where they are sharded."""
        sharding = self.options.sharding
        if sharding is None:
            return work
        if kind == "F":
            return sharded_forward(work, parameters, sharding, gather=gather)
        return sharded_backward(work, parameters, sharding, gather=gather and kind != "W", scatter=scatter)

    def _cached(self, key: tuple, work, kind: str) -> Template:
        if key not in self._templates:
            self._templates[key] = self.compiler.compile(work(), *_CALLED[kind])
        return self._templates[key]

    def _place(self, template: Template, tag: int, waits: tuple, signals: tuple, lane: str) -> None:
        if lane != "compute":
            pieces = tuple((lane if name == "compute" else f"{name} {lane}", part) for name, part in template.pieces)
            template = replace(template, pieces=pieces)
        self._place_launched(template, tag, waits, signals, lane)
        if self._sending is not None and any(signal == self._sending.done for signal, _ in signals):
            # A blocking send: computation goes on when it is over.
            self.lanes[lane].append(Item(Fragment(()), tag, 0, (self._sending.over,)))
            if self.launching is not None:
                self.launching.held += (self._sending.over,)
            self._sending = None

    def _place_launched(self, template: Template, tag: int, waits: tuple, signals: tuple, lane: str) -> None:
        """Place what the host launches: it begins when the host has come to it, and ends no earlier than its launch."""
        if self.launching is None:
            template.place(self.plan, self.lanes, tag, waits, signals)
            return
        waits, launched = self.launching.place(self.lanes, template, tag, waits)
        template.place(self.plan, self.lanes, tag, waits)
        self.lanes[lane].append(Item(Fragment(()), tag, 0, (launched,), signals))

    # After the passes ----------------------------------------------------------------------------------------------

    def _gather_early(self, iteration: int) -> dict[tuple[int, int], tuple[int, ...]]:
        """Overlapped parameter gathering: stage by stage at the start of the iteration, awaited by first forwards."""
        if self.options.sharding or not self.options.sharded_optimizer or not self.options.overlap_gather:
            return {}
        if self.degrees["dp"] == 1:
            return {}
        result = {}
        tag = self.tags.number(Tag(iteration=iteration))
        for key in sorted(self.stages, key=lambda key: key[1]):
            steps = gather_steps(self.stages[key].total, self.options.param_bytes)
            signal = self.plan.new_signal()
            self._serial(steps, "dp").place(self.plan, self.lanes, tag, (), ((signal, 0.0),))
            result[key] = (signal,)
        return result

    def _reduce(self, share: Shares, tag: int, waits: tuple[int, ...], reduced: list[int]) -> None:
        steps = reduction_steps(share, self.options.grad_bytes, self.options.scatter_gradients)
        steps = [step for step in steps if self.degrees[step.work.group] > 1]
        if not steps:
            return
        signal = self.plan.new_signal()
        self._serial(steps, "dp").place(self.plan, self.lanes, tag, waits, ((signal, 0.0),))
        reduced.append(signal)

    def _reduce_now(self, d: int, s: int, tag: int, reduced: list[int]) -> None:
        """A reduction that computation waits for."""
        steps = reduction_steps(self.stages[d, s].total, self.options.grad_bytes, self.options.scatter_gradients)
        self._serial([x for x in steps if self.degrees[x.work.group] > 1], "compute").place(self.plan, self.lanes, tag)

    def _serial(self, steps: list[Step], lane: str) -> Template:
        key = ("serial", lane, *steps)
        if key not in self._templates:
            ops = tuple(self._op(step, lane) for step in steps)
            self._templates[key] = Template(((lane, Fragment(ops)),), 0)
        return self._templates[key]

    def _op(self, step: Step, lane: str):
        kind = None if isinstance(step.work, Communication) else "optimizer"
        return self.compiler.costs.op(step, lane, -1, kind=kind)

    def _finish(self, iteration: int, reduced: list[int]) -> None:
        """Gradient reduction that did not overlap, tied embeddings, norm over the whole model, update, gathering."""
        options = self.options
        tag = self.tags.number(Tag(iteration=iteration))
        total = sum((stage.total for stage in self.stages.values()), Shares(0.0, 0.0))
        steps: list[Step] = []
        if not options.overlap_reduce and options.accumulate_locally and options.sharding is None:
            for stage in self.stages.values():
                steps += reduction_steps(stage.total, options.grad_bytes, options.scatter_gradients)
        if self.degrees["embedding"] > 1:
            size = self._embedding_bytes()
            steps.append(Step("embedding gradient", Communication("all_reduce", "embedding", size), "dp", "backward"))
        held = total.total
        if options.sharded_optimizer:
            held = total.dense / self.degrees["dp"] + total.expert / self.degrees["edp"]
        tensors = 12 * sum(len(stage.parameters) for stage in self.stages.values())
        norm, *update = optimizer_steps(
            held,
            options.optimizer,
            options.grad_bytes,
            options.param_bytes,
            options.fused_optimizer,
            tensors,
            options.unscale,
        )
        steps.append(norm)
        if self.degrees["norm"] > 1:
            steps.append(Step("gradient norm all-reduce", Communication("all_reduce", "norm", 4.0), "dp", "update"))
        steps += update
        if options.sharded_optimizer and not options.overlap_gather and options.sharding is None:
            steps += gather_steps(total, options.param_bytes)
        steps = [s for s in steps if not isinstance(s.work, Communication) or self.degrees.get(s.work.group, 2) > 1]
        template = self._serial(steps, "compute")
        if self.launching is not None:
            cost = self.launching.cost
            template = replace(template, phase="update", launch=launch_seconds(steps, cost) + tensors * cost.tensor)
        self._place_launched(template, tag, tuple(reduced), (), "compute")

    def _embedding_bytes(self) -> float:
        """The tied matrix on this rank: the sharded part of the first or last part's parameters."""
        return self.degrees["embedding_parameters"] * self.options.grad_bytes


_CALLED = {
    "F": ("forward", "forward"),
    "BW": ("backward", "backward"),
    "B": ("backward input", "backward"),
    "W": ("backward weight", "weight"),
}


def _pass(steps: StageSteps, kind: str) -> Pass:
    return {
        "F": steps.forward,
        "BW": steps.backward,
        "B": steps.backward_input,
        "W": steps.backward_weight,
    }[kind]()


def _gradient_ops(order: tuple) -> list:
    """For each op of an order the (kind, direction, stage, …) that makes weight gradients, None for the others."""
    made = []
    for op in order:
        if op[0] == "FB":
            made.append(("BW", *op[4:]))
        else:
            made.append(op if op[0] in ("BW", "W") else None)
    return made
