"""No simulation of a layout can take less time than this says.

Durations without contention only grow when things share, and every order of the program is fixed, so that each path
of dependent ops is a bound. Taken are, for each pipeline rank, the forwards that must come before its first op, all
its own work, the backwards that must follow its last one, and what the end of the iteration adds; and for its data
parallel stream all that it carries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llmsim.model.layer import LayerSteps
from llmsim.model.work import Communication, Step
from llmsim.parallel.schedules.order import Schedule
from llmsim.program.stages.fsdp import gathers
from llmsim.program.stages.gradient_reduction import buckets
from llmsim.program.stages.options import Options
from llmsim.program.stages.parameter_update import Closing
from llmsim.program.stages.shares import Shares
from llmsim.studies.search.outline import Costs, Outline

_ROUNDING = 1 - 1e-9  # sums are taken in another order than the engine's
_LEAST_JITTERED = 6.0  # standard deviations that no sum of kernel times stays below its mean by


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds of one micro-batch by virtual stage: forward, fused backward, its halves, and sends to either side.

    reduced: what computation waits for behind each backward, where gradients are reduced at once.
    """

    forward: list[float]
    fused: list[float]
    first: list[float]
    second: list[float]
    send_forward: list[float]
    send_backward: list[float]
    reduced: list[float]


@dataclass(frozen=True, slots=True)
class _Finish:
    """What the compute stream of a rank does after its last pass: before all ranks meet, and after."""

    before: float
    after: float


def least_seconds(outline: Outline) -> float:
    """Seconds of an iteration, at least."""
    schedule, options, layout = outline.setup.schedule, outline.setup.options, outline.setup.resolved.layout
    times, costs = _times(outline), outline.costs
    per_direction = layout.micro_batches // schedule.directions
    kinds = {op[0] for ops in schedule.orders for op in ops}
    carried, tails = 0.0, []
    to_head = _to_head(schedule, times, kinds)
    finish = _finishes(outline)
    for rank in range(schedule.stages):
        held = outline.held(rank)
        work = per_direction * _work(held, times, kinds, options)
        nearest = [min(s for d, s in held if d == way) for way in {d for d, _ in held}]
        fill = min(sum(times.forward[:s]) + sum(times.send_forward[:s]) for s in nearest) if options.waiting else 0.0
        busy = _early(outline, held) + fill + work
        tails.append(busy + finish[rank].before)
        # Of split backwards the halves for weights may come last, with nobody waiting for them.
        if options.waiting and schedule.directions == 1 and "B" not in kinds:
            # A gradient is sent on before those of weights are reduced.
            drain = to_head[nearest[0]] - times.reduced[nearest[0]]
            if not options.overlap_pipeline:
                drain -= times.send_backward[nearest[0]]  # has been counted as work
            tails.append(busy + drain + finish[schedule.rank_of(0, 0)].before)
        carried = max(carried, fill + per_direction * _carried(outline, rank, held))
    reached = max(*tails, carried)
    if layout.tp * layout.pp > 1:
        reached += costs.seconds(Communication("all_reduce", "norm", 4.0))
    total = reached + max(part.after for part in finish)
    if outline.setup.loading:
        # Measured from the end of the first iteration, whose last optimizer steps may run beside the second's start.
        total -= max(part.after for part in finish) + max(_early(outline, [(0, s)]) for s in range(len(times.forward)))
    # Kernel times that vary are gamma distributed, and their sum deviates less than each of them.
    slowest = 1.0 - _LEAST_JITTERED * outline.setup.scenario.simulation.jitter
    return max(total * slowest, 0.0) * _ROUNDING


# -- passes --------------------------------------------------------------------------------------------------------


def _times(outline: Outline) -> _Times:
    schedule, options, costs = outline.setup.schedule, outline.setup.options, outline.costs
    count = schedule.virtual_stages
    send = {way: 0.0 for way in ("next", "prev")}
    if schedule.stages > 1:
        send = {way: costs.seconds(Communication("send_recv", f"pp_{way}", options.boundary_bytes)) for way in send}
    least = min(send.values())
    again = costs.seconds(Communication("all_gather", "tp", options.gather_boundary)) if options.gather_boundary else 0
    ranks = schedule.placement[0]
    crosses = [ranks[s] != ranks[s + 1] for s in range(count - 1)]
    sends = [least * crossing for crossing in crosses]
    forward, fused, first, second = ([row[i] for row in _parts(outline)] for i in range(4))
    for s in range(count):
        if s and crosses[s - 1]:
            forward[s] += again
        if s < count - 1 and crosses[s]:
            fused[s] += again
            first[s] += again
    if options.sharding is not None and options.sharding.reshard:
        brought = [_gathers(outline, s) for s in range(count)]
        forward = [max(t + head, total) for t, (head, total) in zip(forward, brought)]
        fused = [max(t, total) for t, (_, total) in zip(fused, brought)]
        first = [max(t, total) for t, (_, total) in zip(first, brought)]
    reduced = [0.0] * count
    if not options.accumulate_locally and not options.overlap_reduce and options.sharding is None:
        reduced = [_reduced_at_once(outline, s) for s in range(count)]
    return _Times(forward, fused, first, second, [*sends, 0.0], [0.0, *sends], reduced)


def _parts(outline: Outline) -> list[tuple[float, ...]]:
    """(forward, fused backward, first half, second half) of each virtual stage, without what sharding adds."""
    return [
        tuple(map(sum, zip((0.0,) * 4, *(_passes(steps, outline.costs) for _, steps in stage.steps.parts))))
        for stage in outline.setup.stages
    ]


def _passes(steps: LayerSteps, costs: Costs) -> tuple[float, ...]:
    """The same of one part."""
    known = costs.passes.get(id(steps))
    if known is None:
        passes = (steps.forward, steps.backward, steps.backward_input, steps.backward_weight)
        known = costs.passes[id(steps)] = (steps, tuple(_path(part, costs) for part in passes))
    return known[1]


def _path(steps: Sequence[Step], costs: Costs) -> float:
    """When the last of some steps ends: the longest chain of dependencies and of streams."""
    ends: list[float] = []
    streams: dict[str, float] = {}
    for index, step in enumerate(steps):
        after = (index - 1,) * bool(index) if step.after is None else step.after
        start = max((ends[i] for i in after), default=0.0)
        end = max(start, streams.get(step.stream, 0.0)) + costs.seconds(step.work)
        streams[step.stream] = end
        ends.append(end)
    return ends[-1] if ends else 0.0


def _gathers(outline: Outline, stage: int) -> tuple[float, float]:
    """Seconds of the first parameter gather of a sharded stage, and of all of them."""
    sharding = outline.setup.options.sharding
    assert sharding is not None
    seconds = [_seconds(gathers(share, sharding, ""), outline) for share in outline.setup.stages[stage].parameters]
    return seconds[0] if seconds else 0.0, sum(seconds)


def _to_head(schedule: Schedule, times: _Times, kinds: set[str]) -> list[float]:
    """From the end of the last backward of each virtual stage to that of stage 0."""
    result = [0.0]
    for s in range(1, schedule.virtual_stages):
        options = [part[s - 1] for kind, part in (("BW", times.fused), ("FB", times.fused), ("B", times.first))
                   if kind in kinds]  # fmt: skip
        result.append(result[-1] + times.send_backward[s] + min(options))
    return result


def _work(held: list[tuple[int, int]], times: _Times, kinds: set[str], options: Options) -> float:
    """Seconds that one micro-batch (of each direction) occupies the compute stream of a rank."""
    forward = sum(times.forward[s] for _, s in held)
    fused = sum(times.fused[s] for _, s in held)
    halves = sum(times.first[s] + times.second[s] for _, s in held)
    reduced = sum(times.reduced[s] for _, s in held)
    if "FB" in kinds:  # two lanes, each with its own sends and reductions
        return max(forward, min(fused, halves) + reduced)
    backward = min(fused, halves) if kinds >= {"BW", "B"} else halves if "B" in kinds else fused
    sends = 0.0 if options.overlap_pipeline else sum(times.send_forward[s] + times.send_backward[s] for _, s in held)
    return forward + backward + reduced + sends


# -- the beginning and the end of an iteration ---------------------------------------------------------------------


def _seconds(steps: Sequence[Step], outline: Outline) -> float:
    """One after the other."""
    return sum(outline.costs.seconds(step.work) for step in steps)


def _closing(outline: Outline, rank: int) -> Closing:
    return Closing(outline.setup.options, outline.setup.degrees(rank))


def _finishes(outline: Outline) -> list[_Finish]:
    """By pipeline rank; once for ranks that hold the same."""
    known: dict[tuple, _Finish] = {}
    result = []
    for rank in range(outline.setup.schedule.stages):
        held = [outline.setup.stages[s] for _, s in outline.held(rank)]
        alike = tuple((stage.parameters, tuple(part.kind for part in stage.parts)) for stage in held)
        key = (alike, *outline.setup.degrees(rank).items())
        if key not in known:
            known[key] = _finish(outline, rank)
        result.append(known[key])
    return result


def _finish(outline: Outline, rank: int) -> _Finish:
    options, closing = outline.setup.options, _closing(outline, rank)
    stages = [outline.setup.stages[s] for _, s in outline.held(rank)]
    totals, parts = [stage.total for stage in stages], sum(len(stage.parameters) for stage in stages)
    matrices = outline.matrices(tuple(s for _, s in outline.held(rank))) if options.optimizer == "muon" else {}
    steps = closing.steps(totals, parts, matrices)
    norm = next(index for index, step in enumerate(steps) if step.name == "gradient norm") + 1
    together = norm + (norm < len(steps) and steps[norm].name == "gradient norm all-reduce")
    before, after = _seconds(steps[:norm], outline), _seconds(steps[together:], outline)
    if options.sharding is None and options.accumulate_locally and options.overlap_reduce and closing.reducing:
        before += min(_last_bucket(outline, closing, s) for _, s in outline.held(rank))
    updates = closing.cpu_buckets(totals, parts)
    if updates:
        done = sum(outline.costs.seconds(update.work) for update, _ in updates)
        back = updates[-1][1]
        done += 0.0 if back is None else outline.costs.seconds(back.work)
        after = max(after, done) + _seconds(closing.last_gather(totals), outline)
    return _Finish(before, after)


def _buckets(outline: Outline, stage: int) -> list[tuple[Shares, int]]:
    """(parameters, parts) of each bucket of gradients, in the order in which a backward makes them."""
    parameters = tuple(reversed(outline.setup.stages[stage].parameters))
    result, begin = [], 0
    for count in buckets(parameters, outline.setup.options.bucket):
        result.append((sum(parameters[begin : begin + count], Shares(0.0, 0.0)), count))
        begin += count
    return result


def _last_bucket(outline: Outline, closing: Closing, stage: int) -> float:
    """Reduction of the last bucket of a virtual stage, which can only start when its last backward is over."""
    last = _buckets(outline, stage)[-1:]
    return sum(_seconds(closing.reductions(*bucket), outline) for bucket in last)


def _reduced_at_once(outline: Outline, stage: int) -> float:
    """A reduction that computation waits for, of one backward."""
    program = outline.setup.stages[stage]
    closing = _closing(outline, outline.setup.schedule.rank_of(0, stage))
    return _seconds(closing.reductions(program.total, len(program.parameters)), outline) if closing.reducing else 0.0


def _early(outline: Outline, held: list[tuple[int, int]]) -> float:
    """The gather of parameters that the first forward of a rank waits for."""
    options, layout = outline.setup.options, outline.setup.resolved.layout
    if options.sharding or not options.sharded_optimizer or not options.overlap_gather or outline.setup.loading:
        return 0.0
    if layout.dp * layout.cp == 1 or min(s for _, s in held):
        return 0.0
    return _seconds(
        _closing(outline, outline.setup.schedule.rank_of(0, 0)).gathers(outline.setup.stages[0].total), outline
    )


def _carried(outline: Outline, rank: int, held: list[tuple[int, int]]) -> float:
    """Seconds of one micro-batch on the data parallel stream, where gradients are reduced for each."""
    options, closing = outline.setup.options, _closing(outline, rank)
    if options.accumulate_locally or options.sharding is not None or not options.overlap_reduce:
        return 0.0
    if not closing.reducing:
        return 0.0
    return sum(_seconds(closing.reductions(*bucket), outline) for _, s in held for bucket in _buckets(outline, s))
