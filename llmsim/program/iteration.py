"""The lanes of every rank class for one or more training iterations."""

from collections import Counter
from dataclasses import dataclass, field, replace

from llmsim.engine.plan import Fragment, Item, Lane, Plan
from llmsim.errors import UserError
from llmsim.model.work import Communication, Gemm, Step
from llmsim.parallel.schedules.order import Schedule
from llmsim.program.beside import Company
from llmsim.program.blocks import PassCompiler
from llmsim.program.closing import Closing
from llmsim.program.data import Loader
from llmsim.program.fsdp import Sharding, flattening, gathers, scatters
from llmsim.program.gradients import Shares, buckets
from llmsim.program.host import Launching, launch_seconds
from llmsim.program.labels import Numbered, Tag
from llmsim.program.offload import activation_copies
from llmsim.program.options import Options
from llmsim.program.parts import StagePart
from llmsim.program.passes import Pass, StageSteps
from llmsim.program.template import Template


@dataclass(frozen=True, slots=True)
class StageProgram:
    """One virtual stage: its parts in forward order, and of each (as `steps.parts`) the steps, the parameters and the
    bytes that its forward keeps for its backward."""

    parts: tuple[StagePart, ...]
    steps: StageSteps
    parameters: tuple[Shares, ...]
    kept: tuple[float, ...]

    @property
    def moved(self) -> tuple[bool, ...]:
        """Which parts' activations leave the GPU: all that are known to be kept, but the last layer's."""
        layers = [index for index, part in enumerate(self.parts) if part.role == "layer"]
        return tuple(index in layers[:-1] and self.kept[index] > 0 for index in range(len(self.kept)))

    @property
    def matrices(self) -> Counter[tuple[int, int, bool]]:
        """How many weights of (rows, columns, whether of an expert) the layers have, as their gradients say."""
        found: Counter[tuple[int, int, bool]] = Counter()
        for layer, steps in self.steps.parts:
            for step in steps.backward if layer >= 0 else ():
                if isinstance(step.work, Gemm) and step.name.endswith("_wgrad"):
                    found[step.work.m, step.work.n, step.work.grouped] += step.work.batch
        return found

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
    degrees: dict[str, float]
    loader: Loader | None = None
    launching: Launching | None = None  # None: the host is always ahead
    lanes: dict[str, list[Item]] = field(default_factory=dict)
    _sending: "_Sending | None" = None
    _templates: dict[tuple, Template] = field(default_factory=dict)

    @property
    def closing(self) -> Closing:
        return Closing(self.options, self.degrees)

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
        reduces = kind != "B" and (self.closing.reducing or self.closing.on_cpu)
        overlapped = reduces and self.options.overlap_reduce and (last or not self.options.accumulate_locally)
        if not overlapped or not self.stages[d, s].parameters:
            self._place(self._template(kind, d, s), tag, waits, signals, lane)
            if reduces and not self.options.accumulate_locally:
                self._reduce_now(d, s, tag)
            return
        program = self.stages[d, s]
        parameters = tuple(reversed(program.parameters))
        pieces = self._in_buckets(kind, d, s, buckets(parameters, self.options.bucket))
        for template, begin, end in pieces:
            ready = self.plan.new_signal()
            final = signals if end == len(parameters) else ()
            self._place(template, tag, waits if begin == 0 else (), (*final, (ready, 0.0)), lane)
            self._reduce(sum(parameters[begin:end], Shares(0.0, 0.0)), end - begin, tag, (ready,), reduced)

    def _in_buckets(self, kind: str, d: int, s: int, counts: list[int]) -> list[tuple[Template, int, int]]:
        """A backward pass in pieces, one for each bucket of gradients: (template, first part, part behind the last)."""
        company = self._company(kind, d, s)
        extra = len(company.work.parts) - len(self.stages[d, s].parameters)
        pieces, begin = [], 0
        for number, count in enumerate(counts):
            end = begin + count
            first = begin + extra if begin else 0
            template = self._cached(
                ("bucket", kind, d, s, number), lambda b=first, e=end + extra: company.piece(b, e), kind
            )
            pieces.append((template, begin, end))
            begin = end
        return pieces

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
        key = (kind, d, s, scatter, gather)
        return self._cached(key, lambda: self._company(kind, d, s, scatter, gather).whole(), kind)

    def _work(self, kind: str, d: int, s: int) -> Pass:
        """The steps of a pass, and before them the gather of what another stage's ranks sent in parts."""
        work = _pass(self.stages[d, s].steps, kind)
        received = kind != "W" and self._neighbour(d, s - 1 if kind == "F" else s + 1) not in (None, self.stage)
        if not self.options.gather_boundary or not received:
            return work
        gather = Communication("all_gather", "tp", self.options.gather_boundary)
        phase = "forward" if kind == "F" else "backward"
        return Pass(((-1, (Step("gather received", gather, "tp", phase),)), *work.parts))

    def _company(self, kind: str, d: int, s: int, scatter: bool = False, gather: bool = True) -> Company:
        """A pass with what runs beside it: parameters gathered, gradients scattered, state moved in and out."""
        work, stage = self._work(kind, d, s), self.stages[d, s]
        sharding, offloading = self.options.sharding, self.options.offloading
        moved = offloading is not None and offloading.activations != "none" and kind != "W"
        parameters = stage.parameters if kind == "F" else stage.parameters[::-1]
        extra = len(work.parts) - len(parameters)
        if sharding is not None and scatter:
            work = work.extended([[]] * extra + [flattening(share, sharding) for share in parameters])
        before: list[list] = [[] for _ in work.parts]
        after: list[list] = [[] for _ in work.parts]
        phase = "forward" if kind == "F" else "backward"
        for place, share in enumerate(parameters if sharding else (), start=extra):
            if gather and kind != "W":
                before[place].append([*self._fetches(share, sharding, phase), *gathers(share, sharding, phase)])
            if scatter:
                after[place].append([*scatters(share, sharding), *self.closing.to_cpu(share)])
        if moved:
            out, back = activation_copies(stage.kept, stage.moved, offloading)
            for place, copies in enumerate(out if kind == "F" else back[::-1], start=extra):
                (after if kind == "F" else before)[place].append(copies)
        if sharding is None:
            return Company(work, before, after, bounded=moved)
        return Company(work, before, after, moved, sharding.prefetch, sharding.awaited)

    def _fetches(self, share: Shares, sharding: Sharding, phase: str) -> list[Step]:
        offloading, size = self.options.offloading, sharding.shard(share)
        if offloading is None or offloading.parameters == "none" or not size:
            return []
        return [offloading.fetch(size, sharding.param_bytes, phase)]

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
            steps = self.closing.gathers(self.stages[key].total)
            signal = self.plan.new_signal()
            self._serial(steps, "dp").place(self.plan, self.lanes, tag, (), ((signal, 0.0),))
            result[key] = (signal,)
        return result

    def _reduce(self, share: Shares, parts: int, tag: int, waits: tuple[int, ...], reduced: list[int]) -> None:
        for steps, lane in ((self.closing.reductions(share, parts), "dp"), (self.closing.to_cpu(share), "offload")):
            if steps:
                signal = self.plan.new_signal()
                self._serial(steps, lane).place(self.plan, self.lanes, tag, waits, ((signal, 0.0),))
                reduced.append(signal)
                waits = (signal,)

    def _reduce_now(self, d: int, s: int, tag: int) -> None:
        """A reduction that computation waits for."""
        total = self.stages[d, s].total
        steps = [*self.closing.reductions(total, len(self.stages[d, s].parameters)), *self.closing.to_cpu(total)]
        self._serial(steps, "compute").place(self.plan, self.lanes, tag)

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
        tag = self.tags.number(Tag(iteration=iteration))
        stages = [stage.total for stage in self.stages.values()]
        parts = sum(len(stage.parameters) for stage in self.stages.values())
        matrices = sum((stage.matrices for stage in self.stages.values()), Counter())
        steps = self.closing.steps(stages, parts, matrices)
        template = self._serial(steps, "compute")
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
        gather = self._serial(self.closing.last_gather(stages), "compute")
        gather.place(self.plan, self.lanes, tag, tuple(done))

    def _on_cpu(self, update: Step, back: Step | None, tag: int, begin: int) -> int:
        """One bucket updated on the CPU and copied back; the signal that it is."""
        for step, lane in ((update, "cpu"), (back, "prefetch")):
            if step is not None:
                done = self.plan.new_signal()
                self._serial([step], lane).place(self.plan, self.lanes, tag, (begin,), ((done, 0.0),))
                begin = done
        return begin


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
