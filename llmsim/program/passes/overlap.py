"""Runs copies and communication beside the parts of a pass: brought ahead of their use, taken away behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmsim.model.work import Step
from llmsim.program.stages.pass_steps import Pass

Chain = Sequence[Step]  # one step after the other


@dataclass(frozen=True, slots=True)
class Company:
    """A pass and, for each of its parts, the chains of steps that run before and after it (see `run_beside`)."""

    work: Pass
    before: Sequence[Sequence[Chain]]
    after: Sequence[Sequence[Chain]]
    bounded: bool = False
    ahead: bool = True
    awaited: bool = False

    def whole(self) -> Pass:
        """The pass in one piece; itself where nothing runs beside it."""
        if not any(chain for chains in (*self.before, *self.after) for chain in chains):
            return self.work
        return run_beside(self.work, self.before, self.after, self.bounded, self.ahead, self.awaited)

    def piece(self, begin: int, end: int) -> Pass:
        """Parts from `begin` up to `end`. What part `end` waits for is brought beside the last of them."""
        parts = self.work.parts
        work = Pass(parts[begin:end], self.work.closed)
        mine = replace(self, work=work, before=self.before[begin:end], after=self.after[begin:end])
        ahead = self.before[end] if end < len(parts) else ()
        if begin or any(ahead):
            layer = parts[end][0] if end < len(parts) else -1
            first = [()] if begin else self.before[:1]
            before = [*first, *self.before[begin + 1 : end], ahead]
            whole = Pass((*parts[begin:end], (layer, ())))
            mine = replace(self, work=whole, before=before, after=[*self.after[begin:end], ()])
        return mine.whole()


def run_beside(
    work: Pass,
    before: Sequence[Sequence[Chain]],
    after: Sequence[Sequence[Chain]],
    bounded: bool = False,
    ahead: bool = True,
    awaited: bool = False,
) -> Pass:
    """`work` with chains of steps before and after each of its parts, wired as a whole.

    before[i]: what part i waits for, begun when part i − 1 begins, so that one part is brought while the one in front
    of it computes. after[i]: what begins when part i is done; later parts do not wait for it, except that with
    `bounded` part i + 2 does, since two buffers take turns, and with `awaited` part i + 1 does. Without `ahead`,
    before[i] begins only when part i − 1 is done. Chains of one part do not wait for one another, but streams
    are FIFO in the order in which steps are issued.
    """
    steps: list[Step] = []
    layers: list[int] = []
    ends: list[tuple[int, ...]] = []  # after which steps each part has been computed
    brought: list[tuple[int, ...]] = []
    taken: list[tuple[int, ...]] = []

    def issue(chains: Sequence[Chain], begin: tuple[int, ...], layer: int) -> tuple[int, ...]:
        """The last steps of the chains."""
        last = []
        for chain in chains:
            waits = begin
            for step in chain:
                steps.append(replace(step, after=waits))
                layers.append(layer)
                waits = (len(steps) - 1,)
            last += waits if chain else ()
        return tuple(last)

    def bring(index: int) -> None:
        if index < len(work.parts):
            lead = 2 if ahead else 1
            waits = ends[index - lead] if index >= lead else ()
            brought.append(issue(before[index], waits, work.parts[index][0]))

    if ahead:
        bring(0)
    for index, (layer, part) in enumerate(work.parts):
        bring(index + ahead)
        previous = ends[-1] if ends else ()
        if bounded and index >= 2:
            previous = (*previous, *taken[index - 2])
        if awaited and index:
            previous = (*previous, *taken[index - 1])
        base = len(steps)
        for place, step in enumerate(part):
            if step.after is None:
                waits = (base + place - 1,) if place else (*previous, *brought[index])
            else:
                waits = tuple(base + i for i in step.after)
            steps.append(replace(step, after=waits))
            layers.append(layer)
        ends.append((len(steps) - 1,) if part else previous)
        taken.append(issue(after[index], ends[-1], layer))
    # One part a step, so that each keeps its layer number; indices are those of the whole pass.
    parts = tuple((layer, (step,)) for step, layer in zip(steps, layers))
    return Pass(parts, closed=False, wired=True)
