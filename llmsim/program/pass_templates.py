"""Templates of the passes of one rank class, with what runs beside them, and of steps in series; each made once."""

from dataclasses import dataclass, field
from functools import lru_cache

from llmsim.engine.plan import Fragment
from llmsim.model.work import Communication, Step
from llmsim.program.beside import Company
from llmsim.program.blocks import PassCompiler
from llmsim.program.boundary import Boundary
from llmsim.program.closing import Closing
from llmsim.program.fsdp import Sharding, flattening, gathers, scatters
from llmsim.program.gradients import Shares, buckets
from llmsim.program.offload import activation_copies
from llmsim.program.options import Options
from llmsim.program.passes import Pass
from llmsim.program.stage import StageProgram
from llmsim.program.template import Template

_CALLED = {
    "F": ("forward", "forward"),
    "BW": ("backward", "backward"),
    "B": ("backward input", "backward"),
    "W": ("backward weight", "weight"),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a backward pass, and the templates of what follows it: its gradients reduced and copied away."""

    template: Template
    followed: tuple[Template, ...]


@dataclass(slots=True)
class PassTemplates:
    """`stages`: (direction, virtual stage) -> program, of this rank."""

    compiler: PassCompiler
    stages: dict[tuple[int, int], StageProgram]
    options: Options
    closing: Closing
    boundary: Boundary
    _known: dict[tuple, Template] = field(default_factory=dict)
    _pieces: dict[tuple, tuple[Piece, ...]] = field(default_factory=dict)

    def whole(self, kind: str, d: int, s: int, scatter: bool = False, gather: bool = True) -> Template:
        """A pass in one piece."""
        key = (kind, d, s, scatter, gather)
        if key not in self._known:
            work = self._company(kind, d, s, scatter, gather).whole()
            self._known[key] = self.compiler.compile(work, *_CALLED[kind])
        return self._known[key]

    def in_buckets(self, kind: str, d: int, s: int) -> tuple[Piece, ...]:
        """A backward pass in pieces, one for each bucket of gradients."""
        key = (kind, d, s)
        if key not in self._pieces:
            self._pieces[key] = self._cut(kind, d, s)
        return self._pieces[key]

    def _cut(self, kind: str, d: int, s: int) -> tuple[Piece, ...]:
        company = self._company(kind, d, s)
        parameters = tuple(reversed(self.stages[d, s].parameters))
        extra = len(company.work.parts) - len(parameters)
        pieces, begin = [], 0
        for count in buckets(parameters, self.options.bucket):
            end = begin + count
            work = company.piece(begin + extra if begin else 0, end + extra)
            template = self.compiler.compile(work, *_CALLED[kind])
            share = sum(parameters[begin:end], Shares(0.0, 0.0))
            pieces.append(Piece(template, self._followed(share, count)))
            begin = end
        return tuple(pieces)

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
