"""Compiles the steps of a pass into fragments: serial runs per stream, cut only where another stream looks in.

A communication that everything after it waits for runs inline: its lane is the compute lane, because the compute
stream stands still meanwhile. A communication that computation runs beside gets the lane of its own stream.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llmsim.engine.plan import Fragment, Item, Op, Plan
from llmsim.model.work import Step


@dataclass(frozen=True, slots=True)
class Template:
    """`pieces`: (lane, fragment) in program order; `signals`: how many signals one instance needs.

    `launch`: seconds that the host needs to launch one instance, which is of `phase`.
    """

    pieces: tuple[tuple[str, Fragment], ...]
    signals: int
    launch: float = 0.0
    phase: str = ""

    def in_lane(self, lane: str) -> "Template":
        """The same beside the computing lane: its compute lane is `lane`, and its other lanes are apart too."""
        if lane == "compute":
            return self
        pieces = tuple((lane if name == "compute" else f"{name} {lane}", part) for name, part in self.pieces)
        return replace(self, pieces=pieces)

    def place(
        self,
        plan: Plan,
        lanes: dict[str, list[Item]],
        tag: int,
        waits: tuple[int, ...] = (),
        signals: tuple[tuple[int, float], ...] = (),
    ) -> None:
        """Append one instance: it starts after `waits`, and fires `signals` when all of it is done."""
        base = plan.new_signals(self.signals) if self.signals else 0
        last = len(self.pieces) - 1
        for index, (lane, fragment) in enumerate(self.pieces):
            first_waits = waits if index == 0 or not fragment.waits else ()
            item = Item(fragment, tag, base, first_waits, signals if index == last else ())
            lanes.setdefault(lane, []).append(item)


def compile_template(steps: Sequence[Step], build: Callable[[int, str], Op]) -> Template:
    """Fragments of `steps`; build(index, lane) says what a step costs. The last piece ends when all have ended."""
    lanes = _assign_lanes(steps)
    waits_on = _cross_dependencies(steps, lanes)
    signal_of: dict[int, int] = {}
    for needed in waits_on:
        for step in sorted(needed):
            signal_of.setdefault(step, len(signal_of))
    final = _unjoined(lanes, waits_on)
    early = _begin_without_waiting(lanes, waits_on)
    for step in final:
        signal_of.setdefault(step, len(signal_of))
    pieces: list[tuple[str, Fragment]] = []
    begin = len(signal_of)
    if early:
        # A pass begins when the compute lane comes to it; its communication does not run ahead into the pass before.
        pieces.append(("compute", Fragment((), (), (begin,))))
    open_ops: dict[str, list[Op]] = {}
    open_waits: dict[str, tuple[int, ...]] = {}

    def close(lane: str, signals: tuple[int, ...]) -> None:
        if lane in open_ops:
            pieces.append((lane, Fragment(tuple(open_ops.pop(lane)), open_waits.pop(lane), signals)))

    for index, lane in enumerate(lanes):
        if waits_on[index]:
            close(lane, ())
        if lane not in open_ops:
            open_ops[lane] = []
            waits = tuple(signal_of[step] for step in sorted(waits_on[index]))
            open_waits[lane] = (*waits, begin) if index in early else waits
        open_ops[lane].append(build(index, lane))
        if index in signal_of:
            close(lane, (signal_of[index],))
    for lane in sorted(open_ops, key=lambda name: name == "compute"):
        close(lane, ())
    if final:
        pieces.append(("compute", Fragment((), tuple(signal_of[step] for step in final), ())))
    return Template(tuple(pieces), begin + bool(early))


def _dependencies(steps: Sequence[Step], index: int) -> tuple[int, ...]:
    after = steps[index].after
    if after is not None:
        return after
    return (index - 1,) if index else ()


def _assign_lanes(steps: Sequence[Step]) -> list[str]:
    awaited = _awaited_by_all(steps)
    lanes: list[str] = []
    for index, step in enumerate(steps):
        inline = step.stream == "compute"
        if not inline and awaited[index]:
            inline = index == 0 or (index - 1 in _dependencies(steps, index) and lanes[-1] == "compute")
        lanes.append("compute" if inline else step.stream)
    return lanes


def _awaited_by_all(steps: Sequence[Step]) -> list[bool]:
    """Whether the next step waits for this one and computes, or is awaited itself: then so does all that follows."""
    awaited = [True] * len(steps)
    for index in range(len(steps) - 2, -1, -1):
        stops = steps[index + 1].stream == "compute" or awaited[index + 1]
        awaited[index] = stops and index in _dependencies(steps, index + 1)
    return awaited


def _cross_dependencies(steps: Sequence[Step], lanes: list[str]) -> list[set[int]]:
    """For each step the steps of other lanes it waits for, without those its lane has already waited for."""
    joined: dict[tuple[str, str], int] = {}
    last_on_stream: dict[str, int] = {}
    result = []
    for index, lane in enumerate(lanes):
        needed = set(_dependencies(steps, index))
        stream = steps[index].stream
        if stream in last_on_stream:
            needed.add(last_on_stream[stream])  # streams are FIFO, inline or not
        last_on_stream[stream] = index
        latest: dict[str, int] = {}
        for step in needed:
            if lanes[step] != lane:
                latest[lanes[step]] = max(step, latest.get(lanes[step], -1))
        cross = set()
        for other, step in latest.items():
            if joined.get((lane, other), -1) < step:
                joined[lane, other] = step
                cross.add(step)
        result.append(cross)
    return result


def _begin_without_waiting(lanes: list[str], waits_on: list[set[int]]) -> set[int]:
    """First steps of side lanes that wait for nothing in the pass."""
    first = {lane: index for index, lane in reversed(list(enumerate(lanes))) if lane != "compute"}
    return {index for index in first.values() if not waits_on[index]}


def _unjoined(lanes: list[str], waits_on: list[set[int]]) -> list[int]:
    """Last steps of side lanes that no later step of the compute lane waits for."""
    final = []
    for lane in sorted(set(lanes) - {"compute"}):
        last = max(index for index, name in enumerate(lanes) if name == lane)
        if not any(last in needed for index, needed in enumerate(waits_on) if lanes[index] == "compute"):
            final.append(last)
    return final
