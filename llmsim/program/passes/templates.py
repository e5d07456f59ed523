"""Templates of the passes of one rank class, with what runs beside them, and of steps in series; each made once."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

from llmsim.engine.plan import Fragment
from llmsim.model.work import Communication, Step
from llmsim.program.passes.compiler import PassCompiler
from llmsim.program.passes.fragments import Template
from llmsim.program.passes.overlap import Company
from llmsim.program.passes.stage_transfers import Boundary
from llmsim.program.stages.fsdp import Sharding, flattening, gathers, scatters
from llmsim.program.stages.gradient_reduction import buckets
from llmsim.program.stages.offload import activation_copies
from llmsim.program.stages.options import Options
from llmsim.program.stages.parameter_update import Closing
from llmsim.program.stages.pass_steps import Pass
from llmsim.program.stages.shares import Shares
from llmsim.program.stages.stage import StageProgram

_CALLED = {
    "F": ("forward", "forward"),
    "BW": ("backward", "backward"),
    "B": ("backward input", "backward"),
    "W": ("backward weight", "weight"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A pass that is asked for: its kind, direction and virtual stage, and what runs beside its parts.

    gather, scatter: with sharded parameters, whether they are gathered and their gradients scattered. cut: in pieces,
    one for each bucket of gradients. apart: kernel by kernel, since another pass runs beside it.
    """

    kind: str
    direction: int
    stage: int
    scatter: bool = False
    gather: bool = True
    cut: bool = False
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A pass or a piece of one, and the templates of what follows it: its gradients reduced and copied away."""

    template: Template
    followed: tuple[Template, ...] = ()


@dataclass(slots=True)
class PassTemplates:
    """`stages`: (direction, virtual stage) -> program, of this rank."""

    compiler: PassCompiler
    stages: dict[tuple[int, int], StageProgram]
    options: Options
    closing: Closing
    boundary: Boundary
    _known: dict[tuple, Template] = field(default_factory=dict)
    _crossed: dict[tuple[int, int], bool] = field(default_factory=dict)
    _pieces: dict[Wanted, tuple[Piece, ...]] = field(default_factory=dict)
    _beside: dict[tuple[Wanted, Wanted], tuple[tuple[Piece, ...], tuple[Piece, ...]]] = field(default_factory=dict)

    def pieces(self, wanted: Wanted) -> tuple[Piece, ...]:
        """A pass, in one piece if it is not cut."""
        if wanted not in self._pieces:
            name = _CALLED[wanted.kind]
            self._pieces[wanted] = tuple(
                Piece(self.compiler.compile(work, *name, wanted.apart), followed)
                for work, followed in self._passes(wanted)
            )
        return self._pieces[wanted]

    def crossed(self, d: int, s: int) -> bool:
        """Whether the gradients of a virtual stage are reduced, or copied away, over links that passes use.

        Then the passes beside them are played kernel by kernel: it matters when each of them needs the link.
        """
        if (d, s) not in self._crossed:
            total, parts = self.stages[d, s].total, len(self.stages[d, s].parameters)
            steps = [*self.closing.reductions(total, parts), *self.closing.to_cpu(total)]
            self._crossed[d, s] = self.compiler.whole and self.compiler.crossed_by(steps)
        return self._crossed[d, s]

    def beside(self, forward: Wanted, backward: Wanted, together: bool) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
        """A forward and a backward that run side by side; `together`: they begin at one time, as blocks must."""
        if backward.apart or not (together and self.compiler.whole):
            return self.pieces(replace(forward, apart=True)), self.pieces(replace(backward, apart=True))
        key = (forward, backward)
        if key not in self._beside:
            made = [self._passes(forward), self._passes(backward)]
            works = [work for passes in made for work, _ in passes]
            called = (_CALLED[forward.kind], _CALLED[backward.kind])
            templates = iter(self.compiler.compile_beside(works[0], works[1:], called))
            first, second = (tuple(Piece(next(templates), followed) for _, followed in passes) for passes in made)
            self._beside[key] = (first, second)
        return self._beside[key]

    def _passes(self, wanted: Wanted) -> list[tuple[Pass, tuple[Template, ...]]]:
        """The pass or its pieces, and what follows each."""
        kind, d, s = wanted.kind, wanted.direction, wanted.stage
        company = self._company(kind, d, s, wanted.scatter, wanted.gather)
        if not wanted.cut:
            return [(company.whole(), ())]
        parameters = tuple(reversed(self.stages[d, s].parameters))
        extra = len(company.work.parts) - len(parameters)
        pieces, begin = [], 0
        for count in buckets(parameters, self.options.bucket):
            end = begin + count
            work = company.piece(begin + extra if begin else 0, end + extra)
            share = sum(parameters[begin:end], Shares(0.0, 0.0))
            pieces.append((work, self._followed(share, count)))
            begin = end
        return pieces

    def _followed(self, share: Shares, parts: int) -> tuple[Template, ...]:
        steps = ((self.closing.reductions(share, parts), "dp"), (self.closing.to_cpu(share), "offload"))
        return tuple(self.serial(part, lane) for part, lane in steps if part)

    def reduced_at_once(self, d: int, s: int) -> Template:
        """A reduction that computation waits for."""
        total = self.stages[d, s].total
        steps = [*self.closing.reductions(total, len(self.stages[d, s].parameters)), *self.closing.to_cpu(total)]
        return self.serial(steps, "compute")

    def serial(self, steps: list[Step], lane: str) -> Template:
        """Steps one after the other on a lane."""
        key = ("serial", lane, *steps)
        if key not in self._known:
            ops = tuple(self._op(step, lane) for step in steps)
            self._known[key] = Template(((lane, Fragment(ops)),), 0)
        return self._known[key]

    def _op(self, step: Step, lane: str):
        kind = None if isinstance(step.work, Communication) else "optimizer"
        return self.compiler.costs.op(step, lane, -1, kind=kind)

    # What is in a pass ---------------------------------------------------------------------------------------------

    def _work(self, kind: str, d: int, s: int) -> Pass:
        """The steps of a pass, and before them the gather of what another stage's ranks sent in parts."""
        steps = self.stages[d, s].steps
        work = {
            "F": steps.forward, "BW": steps.backward, "B": steps.backward_input, "W": steps.backward_weight
        }[kind]()  # fmt: skip
        if not self.options.gather_boundary or kind == "W" or not self.boundary.receives(kind, d, s):
            return work
        phase = "forward" if kind == "F" else "backward"
        return Pass(((-1, _gather_received(self.options.gather_boundary, phase)), *work.parts))

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


@lru_cache(maxsize=64)  # blocks of steps are known by the tuple's identity
def _gather_received(size: float, phase: str) -> tuple[Step, ...]:
    return (Step("gather received", Communication("all_gather", "tp", size), "tp", phase),)
