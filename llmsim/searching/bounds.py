"""Lower bounds: no simulation of a layout can take less time, or hold less memory, than these say.

Time. Durations without contention only grow when things share, and every order of the program is fixed, so that each
path of dependent ops is a bound. Taken are, for each pipeline rank, the forwards that must come before its first op,
all its own work, the backwards that must follow its last one, and what the end of the iteration adds; and for its data
parallel stream all that it carries. Memory. Model states, and as many activations as the schedule keeps in flight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from llmsim.catalogue.memory_constants import memory_constants
from llmsim.memory.stages import StageMemory, stage_memory
from llmsim.model.work import Communication, Step
from llmsim.parallel.schedules.order import Schedule
from llmsim.program.gradients import Shares, buckets, gather_steps, optimizer_steps, reduction_steps
from llmsim.scenario import Scenario
from llmsim.searching.outline import Costs, Outline, outline_of

_ROUNDING = 1 - 1e-9  # sums are taken in another order than the engine's


@dataclass(frozen=True, slots=True)
class Bound:
    """seconds of one iteration, bytes on the fullest GPU: at least. capacity: bytes that a GPU has for training."""

    seconds: float
    bytes: float
    capacity: float

    @property
    def fits(self) -> bool:
        """False: certainly too large."""
        return self.bytes <= self.capacity


def bound(scenario: Scenario) -> Bound:
    """The bounds of a valid scenario."""
    outline = outline_of(scenario)
    held, capacity = least_bytes(outline)
    return Bound(least_seconds(outline) * _ROUNDING, held * _ROUNDING, capacity)


# -- time ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds of one micro-batch by virtual stage: forward, fused backward, its halves, and sends to either side."""

    forward: list[float]
    fused: list[float]
    first: list[float]
    second: list[float]
    send_forward: list[float]
    send_backward: list[float]


def least_seconds(outline: Outline) -> float:
    """Seconds of an iteration, at least."""
    schedule, options, layout = outline.schedule, outline.options, outline.resolved.layout
    times, costs = _times(outline), outline.costs
    per_direction = layout.micro_batches // schedule.directions
    kinds = {op[0] for ops in schedule.orders for op in ops}
    ends, carried, tails = [], 0.0, []
    to_head = _to_head(schedule, times, kinds)
    finish = [_finish(outline, rank) for rank in range(schedule.stages)]
    for rank in range(schedule.stages):
        held = [
            (d, s)
            for d in range(schedule.directions)
            for s in range(schedule.virtual_stages)
            if schedule.rank_of(d, s) == rank
        ]
        work = per_direction * _work(held, times, kinds, schedule, options.overlap_pipeline)
        nearest = [min(s for d, s in held if d == way) for way in {d for d, _ in held}]
        fill = min(sum(times.forward[:s]) + sum(times.send_forward[:s]) for s in nearest)
        drain = min(to_head[s] for s in nearest)
        if not options.overlap_pipeline and drain:
            drain -= max(times.send_backward)  # the last send has been counted as work
        if schedule.directions > 1 or "B" in kinds:
            drain = 0.0  # of split backwards the halves for weights may come last, with nobody waiting for them
        early = _early(outline, held)
        ends.append(early + fill + work)
        head = schedule.rank_of(0, 0)
        tails.append(max(early + fill + work + finish[rank].before, early + fill + work + drain + finish[head].before))
        carried = max(carried, fill + per_direction * _carried(outline, held))
    reached = max(*tails, carried) + costs.seconds(Communication("all_reduce", "norm", 4.0))
    if layout.tp * layout.pp == 1:
        reached = max(tails)
    total = max(reached + max(part.after for part in finish), carried)
    if outline.loading:
        # Measured from the end of the first iteration, whose last optimizer steps may run beside the second's start.
        total -= max(part.after for part in finish) + max(_early(outline, [(0, s)]) for s in range(len(times.forward)))
    return max(total, 0.0)


def _times(outline: Outline) -> _Times:
    schedule, options, costs = outline.schedule, outline.options, outline.costs
    count = schedule.virtual_stages
    tp, precise = _parts(outline), options.sharding
    send = {way: 0.0 for way in ("next", "prev")}
    if schedule.stages > 1:
        send = {
            way: costs.seconds(Communication("send_recv", f"pp_{way}", options.boundary_bytes)) for way in send
        }
    least = min(send.values())
    again = costs.seconds(Communication("all_gather", "tp", options.gather_boundary)) if options.gather_boundary else 0
    ranks = schedule.placement[0]
    crosses = [ranks[s] != ranks[s + 1] for s in range(count - 1)]
    sends = [least * crossing for crossing in crosses]
    forward, fused, first, second = ([row[i] for row in tp] for i in range(4))
    for s in range(count):
        if s and crosses[s - 1]:
            forward[s] += again
        if s < count - 1 and crosses[s]:
            fused[s] += again
            first[s] += again
    if precise is not None:
        gathers = [_gathers(outline, s) for s in range(count)]
        forward = [max(t + head, total) for t, (head, total) in zip(forward, gathers)]
        fused = [max(t, total) for t, (_, total) in zip(fused, gathers)]
        first = [max(t, total) for t, (_, total) in zip(first, gathers)]
    return _Times(forward, fused, first, second, [*sends, 0.0], [0.0, *sends])


def _parts(outline: Outline) -> list[tuple[float, float, float, float]]:
    """(forward, fused backward, first half, second half) of each virtual stage, without what sharding adds."""
    costs = outline.costs
    known: dict[int, tuple[float, float, float, float]] = {}
    rows = []
    for stage in outline.stages:
        total = [0.0, 0.0, 0.0, 0.0]
        for _, steps in stage.steps.parts:
            if id(steps) not in known:
                passes = (steps.forward, steps.backward, steps.backward_input, steps.backward_weight)
                known[id(steps)] = tuple(_path(part, costs) for part in passes)
            for i, seconds in enumerate(known[id(steps)]):
                total[i] += seconds
        rows.append(tuple(total))
    return rows


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
    sharding, costs = outline.options.sharding, outline.costs
    seconds = []
    for share in outline.stages[stage].parameters:
        seconds.append(
            sum(
                costs.seconds(Communication("all_gather", group, size * sharding.param_bytes))
                for group, size, ranks in (
                    (sharding.group, share.dense, sharding.ranks),
                    (sharding.expert_group, share.expert, sharding.expert_ranks),
                )
                if size > 0 and ranks > 1
            )
        )
    return seconds[0] if seconds else 0.0, sum(seconds)


def _to_head(schedule: Schedule, times: _Times, kinds: set[str]) -> list[float]:
    """From the end of the last backward of each virtual stage to that of stage 0."""
    result = [0.0]
    for s in range(1, schedule.virtual_stages):
        options = [part[s - 1] for kind, part in (("BW", times.fused), ("FB", times.fused), ("B", times.first))
                   if kind in kinds]  # fmt: skip
        result.append(result[-1] + times.send_backward[s] + min(options))
    return result


def _work(held: list, times: _Times, kinds: set[str], schedule: Schedule, overlaps: bool) -> float:
    """Seconds that one micro-batch (of each direction) occupies the compute stream of a rank."""
    forward = sum(times.forward[s] for _, s in held)
    fused = sum(times.fused[s] for _, s in held)
    halves = sum(times.first[s] + times.second[s] for _, s in held)
    if "FB" in kinds:
        return max(forward, min(fused, halves))
    backward = min(fused, halves) if kinds >= {"BW", "B"} else halves if "B" in kinds else fused
    sends = 0.0 if overlaps else sum(times.send_forward[s] + times.send_backward[s] for _, s in held)
    return forward + backward + sends


@dataclass(frozen=True, slots=True)
class _Finish:
    """What the compute stream of a rank does after its last pass: before all ranks meet, and after."""

    before: float
    after: float


def _total(outline: Outline, rank: int) -> tuple[Shares, int]:
    parts = [
        share
        for d in range(outline.schedule.directions)
        for s, stage in enumerate(outline.stages)
        if outline.schedule.rank_of(d, s) == rank
        for share in stage.parameters
    ]
    return sum(parts, Shares(0.0, 0.0)), len(parts)


def _finish(outline: Outline, rank: int) -> _Finish:
    options, costs, degrees = outline.options, outline.costs, outline._degrees(rank)
    total, parts = _total(outline, rank)

    def seconds(steps: list[Step]) -> float:
        moved = [s for s in steps if not isinstance(s.work, Communication) or degrees.get(s.work.group, 2) > 1]
        return sum(costs.seconds(step.work) for step in moved)

    before = 0.0
    if options.sharding is None and options.accumulate_locally:
        if options.overlap_reduce:
            before = min(seconds(_reduction(outline, s)) for s in _stages_of(outline.schedule, rank))
        else:
            before = seconds(reduction_steps(total, options.grad_bytes, options.scatter_gradients))
    if degrees["embedding"] > 1:
        size = degrees["embedding_parameters"] * options.grad_bytes
        before += costs.seconds(Communication("all_reduce", "embedding", size))
    held = total.total
    if options.sharded_optimizer:
        held = total.dense / degrees["dp"] + total.expert / degrees["edp"]
    norm, *update = optimizer_steps(
        held, options.optimizer, options.grad_bytes, options.param_bytes, options.fused_optimizer, 12 * parts,
        options.unscale,
    )  # fmt: skip
    if options.sharded_optimizer and not options.overlap_gather and options.sharding is None:
        update += gather_steps(total, options.param_bytes)
    return _Finish(before + seconds([norm]), seconds(update))


def _stages_of(schedule: Schedule, rank: int) -> list[int]:
    return [s for ranks in schedule.placement for s, holder in enumerate(ranks) if holder == rank]


def _reduction(outline: Outline, stage: int) -> list[Step]:
    """Of the last bucket of a virtual stage, which can only start when its last backward is over."""
    options, parameters = outline.options, tuple(reversed(outline.stages[stage].parameters))
    last = buckets(parameters, options.bucket)[-1]
    share = sum(parameters[-last:], Shares(0.0, 0.0))
    return reduction_steps(share, options.grad_bytes, options.scatter_gradients)


def _early(outline: Outline, held: list) -> float:
    """The gather of parameters that the first forward of a rank waits for."""
    options, layout = outline.options, outline.resolved.layout
    if options.sharding or not options.sharded_optimizer or not options.overlap_gather or outline.loading:
        return 0.0
    if layout.dp * layout.cp == 1 or min(s for _, s in held):
        return 0.0
    costs = outline.costs
    return sum(costs.seconds(step.work) for step in gather_steps(outline.stages[0].total, options.param_bytes))


def _carried(outline: Outline, held: list) -> float:
    """Seconds of one micro-batch on the data parallel stream, where gradients are reduced for each."""
    options, costs = outline.options, outline.costs
    if options.accumulate_locally or options.sharding is not None or not options.overlap_reduce:
        return 0.0
    degrees = outline._degrees(0)
    total = sum((outline.stages[s].total for _, s in held), Shares(0.0, 0.0))
    steps = reduction_steps(total, options.grad_bytes, options.scatter_gradients)
    return sum(costs.seconds(step.work) for step in steps if degrees[step.work.group] > 1)


# -- memory --------------------------------------------------------------------------------------------------------


def least_bytes(outline: Outline) -> tuple[float, float]:
    """(bytes on the fullest GPU, at least; bytes that a GPU has)."""
    constants, memory = memory_constants(), _memory(outline)
    most = 0.0
    for rank in range(outline.schedule.stages):
        stages = _stages_of(outline.schedule, rank)
        footprints = [memory.footprints[s] for s in stages]
        shares = sum((footprint.parameters for footprint in footprints), Shares(0.0, 0.0))
        flight = outline.peaks[rank]
        kept = flight * min(footprint.kept for footprint in footprints)
        if outline.schedule.split_backward:
            # Between the halves of a backward less may be held than before them.
            kept = flight * min(min(f.kept, f.waiting) for f in footprints)
        coming = max(kept, max(f.kept + f.forward for f in footprints))
        states = memory.keeping.of(shares).total
        most = max(most, states + coming)  # gaps between tensors are given back when memory runs short
        if memory.whole_gradients:
            late = _late_flight(outline.schedule, rank)
            whole = [f.parameters.total for f in footprints]
            summed = memory.whole_gradients * (max(whole) if late is None else sum(whole))
            most = max(most, states + summed + (late or 0) * min(f.kept for f in footprints))
    gpu = outline.resolved.topology.gpu
    return most + constants.workspaces, gpu.memory_bytes - constants.context


def _late_flight(schedule: Schedule, rank: int) -> int | None:
    """Micro-batches in flight while gradients of all chunks add up (unsharded), at least; None if they never all do."""
    made: dict[int, list[int]] = {}
    for place, (kind, chunk, *_) in enumerate(schedule.orders[rank]):
        if kind in ("BW", "W", "FB"):
            made.setdefault(chunk, []).append(place)
    begin, end = max(places[0] for places in made.values()), min(places[-1] for places in made.values())
    if begin > end:
        return None
    if schedule.split_backward or schedule.directions > 1 or len(made) > 1:
        return 0
    flight = most = 0
    for place, (kind, *_) in enumerate(schedule.orders[rank][:end]):
        flight += 1 if kind == "F" else -1
        most = max(most, flight * (place > begin))
    return most


def _memory(outline: Outline) -> StageMemory:
    p, t = outline.scenario.parallelism, outline.scenario.training
    layout = outline.resolved.layout
    key = (outline.resolved.architecture, outline.shard, t.recompute, p.zero, p.stage_layers, layout.shard, layout.edp,
           layout.pp, layout.vpp, min(layout.micro_batches, 2), outline.options.boundary_bytes,
           outline.options.accumulate_locally, t.optimizer, outline.schedule.directions)  # fmt: skip
    return _remembered(_Keyed(key, outline))


class _Keyed:
    """An outline that counts as equal to another whose memory is the same."""

    def __init__(self, key: tuple, outline: Outline) -> None:
        self.key, self.outline = key, outline

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and self.key == other.key


@lru_cache(maxsize=512)
def _remembered(keyed: _Keyed) -> StageMemory:
    return stage_memory(keyed.outline.scenario, keyed.outline)
