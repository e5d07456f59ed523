"""From operators to steps: a layer is a chain of operators, and each knows its forward and its gradients.

`forward` walks the chain; `backward` walks it in reverse, input gradients on the way and weight gradients beside
them. The split form (for zero-bubble schedules) is the same walk without, and then only with, weight gradients.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from llmsim.model.shard import Shard
from llmsim.model.work import Attention, Communication, Gemm, HostWait, MemoryBound, Step

HEAD = -1  # in a relative `after`: what the operator itself waits for
Work = Gemm | Attention | MemoryBound | Communication | HostWait


@dataclass(frozen=True)
class LayerSteps:
    """What a rank does for one micro-batch. `after` indices point into the tuple they are in.

    `backward` is the fused pass (input and weight gradients); `backward_input` (with the recomputation) and
    `backward_weight` are the same work split. Full recomputation comes first; selective, just before the gradient of
    the core. Both have the phase "recompute".
    """

    forward: tuple[Step, ...]
    backward: tuple[Step, ...]
    backward_input: tuple[Step, ...]
    backward_weight: tuple[Step, ...]


@dataclass
class StepList:
    """Steps being listed. `head`: the steps whose results the next one needs."""

    steps: list[Step] = field(default_factory=list)
    head: tuple[int, ...] = ()

    def add(
        self,
        name: str,
        work: Work,
        phase: str,
        stream: str = "compute",
        after: tuple[int, ...] | None = None,
        side: bool = False,
    ) -> int:
        """Append a step that waits for `after` (default: the head) and, unless `side`, becomes the head.

        Adjacent memory-bound kernels in series become one step, to keep layers short; no time is lost by it.
        """
        after = self.head if after is None else after
        last = len(self.steps) - 1
        if isinstance(work, MemoryBound) and self.steps and after == (last,) and not side:
            before = self.steps[-1]
            if isinstance(before.work, MemoryBound) and before.phase == phase:
                merged = MemoryBound(
                    before.work.bytes + work.bytes,
                    before.work.kernels + work.kernels,
                    before.work.flops + work.flops,
                )
                self.steps[-1] = replace(before, name=f"{before.name}+{name}", work=merged)
                return last
        # A plain chain stays implicit, so that lists read well and concatenate.
        wired = None if after == ((last,) if self.steps else ()) else after
        self.steps.append(Step(name, work, stream, phase, wired))
        if not side:
            self.head = (last + 1,)
        return last + 1

    def extend(self, steps: Sequence[Step], phase: str) -> None:
        """Append steps wired among themselves: `after` None is the previous one, HEAD the present head."""
        head, placed = self.head, []
        for step in steps:
            if step.after is None:
                after = (placed[-1],) if placed else head
            else:
                wanted = {index for ref in step.after for index in (head if ref == HEAD else (placed[ref],))}
                after = tuple(sorted(wanted))
            placed.append(self.add(step.name, step.work, phase, step.stream, after))

    def join(self, *indices: int) -> None:
        self.head = tuple(sorted(set(indices)))


@dataclass(frozen=True)
class Fixed:
    """An operator without weights: its steps forward and backward. `recomputed`: its forward runs again before."""

    forward: tuple[Step, ...] = ()
    backward: tuple[Step, ...] = ()
    recomputed: bool = False

    def list_forward(self, steps: StepList, phase: str) -> None:
        steps.extend(self.forward, phase)

    def list_backward(self, steps: StepList, weights: bool) -> None:
        if self.recomputed:
            steps.extend(self.forward, "recompute")
        steps.extend(self.backward, "backward")

    def list_weight(self, steps: StepList) -> None:
        pass


def elementwise(name: str, forward: MemoryBound | None, backward: MemoryBound | None) -> Fixed:
    """A memory-bound operator; None where a pass costs nothing."""
    return Fixed(
        (Step(name, forward),) if forward else (),
        (Step(f"{name}_grad", backward),) if backward else (),
    )


def exchange(name: str, forward: Communication | None, backward: Communication | None) -> Fixed:
    """A communication and the one that carries its gradient, both awaited."""
    return Fixed(
        (Step(name, forward, forward.group),) if forward else (),
        (Step(f"{name}_grad", backward, backward.group),) if backward else (),
    )


@dataclass(frozen=True)
class Linear:
    """`batch` products (m × k)·(k × n) with their gradients, and the tensor-parallel exchanges at either end.

    entry/exit are the collectives before the input and after the output; entry_grad/exit_grad those of the gradients
    (Megatron's f, g and their sequence-parallel forms). `regather`: with sequence parallelism the gathered input is
    not kept but gathered again for the weight gradient. `cast`/`cast_grad`: bytes of the conversions to fp8 or NVFP4.
    `grouped`: the products are those of different experts.
    """

    name: str
    m: int
    n: int
    k: int
    shard: Shard
    precision: str
    batch: int = 1
    grouped: bool = False
    entry: Communication | None = None
    entry_grad: Communication | None = None
    regather: Communication | None = None
    exit: Communication | None = None
    exit_grad: Communication | None = None
    cast: float = 0.0
    cast_grad: float = 0.0

    @property
    def weights(self) -> int:
        return self.batch * self.n * self.k

    @property
    def casts(self) -> int:
        """Kernels of one conversion: experts are converted one by one."""
        return self.batch if self.grouped else 1

    def list_cast(self, steps: StepList, phase: str) -> None:
        if self.cast:
            steps.add(f"{self.name}_cast", MemoryBound(self.cast, self.casts), phase)

    def list_forward(self, steps: StepList, phase: str) -> None:
        self.list_cast(steps, phase)
        gemm = Gemm(self.m, self.n, self.k, self.batch, self.precision, grouped=self.grouped)
        self._overlapped(steps, self.name, gemm, self.entry, self.exit, phase)

    def _overlapped(
        self,
        steps: StepList,
        name: str,
        gemm: Gemm,
        before: Communication | None,
        after: Communication | None,
        phase: str,
    ) -> None:
        """A GEMM with a collective on its input or output: in series, or pipelined chunk by chunk."""
        if not self.shard.tp_overlap or not steps.head:  # a list's first step alone waits for what came before
            if before:
                steps.add(f"{name}_{before.operation}", before, phase, before.group)
            steps.add(name, gemm, phase)
            if after:
                steps.add(f"{name}_{after.operation}", after, phase, after.group)
            return
        head, joined = steps.head, []
        if before:
            joined.append(steps.add(f"{name}_{before.operation}", before, phase, before.group, head, side=True))
        tail = None
        if after:
            # The last chunk of the output exists only when the GEMM ends: 1/tp of the collective stays exposed.
            tail = replace(after, size=after.size / self.shard.tp)
            bulk = replace(after, size=after.size - tail.size)
            joined.append(steps.add(f"{name}_{after.operation}", bulk, phase, after.group, head, side=True))
        joined.append(steps.add(name, gemm, phase, after=head, side=True))
        steps.join(*joined)
        if tail:
            steps.add(f"{name}_{after.operation}_tail", tail, phase, after.group)

    def list_backward(self, steps: StepList, weights: bool) -> None:
        shard, name = self.shard, self.name
        if self.cast_grad:
            steps.add(f"{name}_grad_cast", MemoryBound(self.cast_grad, self.casts), "backward")
        again = self.regather if weights else None
        gathered = None
        start = steps.head
        if again and shard.async_tp_grad and not self.exit_grad:
            gathered = steps.add(f"{name}_regather", again, "backward", again.group, start, side=True)
        elif again:
            steps.add(f"{name}_regather", again, "backward", again.group)
        dgrad = Gemm(self.m, self.k, self.n, self.batch, self.precision, grouped=self.grouped)
        self._overlapped_dgrad(steps, dgrad)
        produced = steps.head
        reduced = None
        if self.entry_grad:
            grad = self.entry_grad
            reduced = steps.add(f"{name}_dgrad_{grad.operation}", grad, "backward", grad.group, produced)
        if not weights:
            return
        if reduced is not None and not shard.async_tp_grad:
            self._list_wgrad(steps, steps.head)
            return
        needed = produced if gathered is None else tuple(sorted({*produced, gathered}))
        done = self._list_wgrad(steps, needed)
        if reduced is not None:
            steps.join(reduced, done)

    def _overlapped_dgrad(self, steps: StepList, gemm: Gemm) -> None:
        self._overlapped(steps, f"{self.name}_dgrad", gemm, self.exit_grad, None, "backward")

    def list_weight(self, steps: StepList) -> None:
        again = self.regather
        if again:
            steps.add(f"{self.name}_regather", again, "weight", again.group)
        self._list_wgrad(steps, steps.head)

    def _list_wgrad(self, steps: StepList, after: tuple[int, ...]) -> int:
        shard = self.shard
        adds = shard.accumulate and shard.fused("grad_accumulation") and shard.gradient == 4
        gemm = Gemm(self.n, self.k, self.m, self.batch, self.precision, adds, self.grouped)
        return steps.add(f"{self.name}_wgrad", gemm, "weight", after=after)


@dataclass(frozen=True)
class Rerun:
    """Stands behind the readers of what `operators` made and nobody kept: the backward runs them again first.

    `readers`: products that convert it to fp8 or NVFP4 once more.
    """

    operators: tuple[Fixed | Linear, ...]
    readers: tuple[Linear, ...] = ()

    def list_forward(self, steps: StepList, phase: str) -> None:
        pass

    def list_backward(self, steps: StepList, weights: bool) -> None:
        for operator in self.operators:
            operator.list_forward(steps, "recompute")
        for reader in self.readers:
            reader.list_cast(steps, "recompute")

    def list_weight(self, steps: StepList) -> None:
        pass


Operator = Fixed | Linear | Rerun


def rerun(shard: Shard, module: str, operators: Iterable[Operator], readers: Iterable[Operator] = ()) -> list[Operator]:
    """A `Rerun` of these operators where the module is recomputed, else nothing. Modules within are left to it."""
    if not shard.recomputes(module):
        return []
    plain = tuple(operator for operator in operators if not isinstance(operator, Rerun))
    return [Rerun(plain, tuple(reader for reader in readers if isinstance(reader, Linear)))]


def assemble(chain: Iterable[Operator], shard: Shard, recompute: bool = True) -> LayerSteps:
    """The passes of a chain of operators, recomputed in full when `shard.recompute` is "full" (unless told not to)."""
    chain = tuple(chain)
    forward, backward = StepList(), StepList()
    split_input, split_weight = StepList(), StepList()
    for operator in chain:
        operator.list_forward(forward, "forward")
    for steps in (backward, split_input):
        if recompute and shard.recompute == "full":
            for operator in chain:
                operator.list_forward(steps, "recompute")
    for operator in reversed(chain):
        operator.list_backward(backward, weights=True)
        operator.list_backward(split_input, weights=False)
        operator.list_weight(split_weight)
    linears = [operator for operator in chain if isinstance(operator, Linear)]
    if shard.accumulate and not shard.fused("grad_accumulation"):
        # One more kernel a weight: read the new gradient, read and write the buffer.
        size = sum(linear.weights for linear in linears) * (shard.element + 2.0 * shard.gradient)
        work = MemoryBound(size, kernels=len(linears))
        for steps in (backward, split_weight):
            steps.add("accumulate_gradients", work, "weight")
    return LayerSteps(*(tuple(s.steps) for s in (forward, backward, split_input, split_weight)))
