"""Where each class's time goes: the ledger of its iteration, from what was played."""

from dataclasses import dataclass

import numpy as np

from llmsim.engine.ledger import attribute, union
from llmsim.engine.player import Played
from llmsim.program.build import Program
from llmsim.program.labels import CATEGORIES, Label
from llmsim.program.precedence import COMPUTING_LANES, WAITED_FOR, clipped, hidden_seconds, is_computing, owned_seconds

BREAKDOWN = (*CATEGORIES, "bubble", "other")
_COMPUTE, _OPTIMIZER, _LAUNCH = (CATEGORIES.index(name) for name in ("compute", "optimizer", "launch"))
_BUBBLE, _OTHER = BREAKDOWN.index("bubble"), BREAKDOWN.index("other")


@dataclass(frozen=True, slots=True)
class Accounts:
    """One iteration, by class. Seconds; `breakdown` rows add up to `iteration`, and no part is negative.

    waiting: of pipeline work in the window from the first to the last pipeline op; busy: doing pipeline work.
    launching: waiting for the host to launch kernels, part of what the breakdown calls other.
    flops: executed; peak_seconds: what they take at peak rate (`Label.peak_seconds`).
    hidden and total: communication time beside computation, and in all, by group.
    """

    iteration: float
    window: tuple[float, float]
    breakdown: np.ndarray  # (classes, len(BREAKDOWN))
    waiting: np.ndarray
    busy: np.ndarray
    flops: np.ndarray
    peak_seconds: np.ndarray
    launching: np.ndarray
    hidden: dict[str, np.ndarray]
    total: dict[str, np.ndarray]


def account(program: Program, played: Played, blocking: bool = False) -> Accounts:
    """The ledger of the last iteration, in which the pipeline is in its steady state.

    blocking: computation waits for its own sends to the next stage.
    """
    labels, tags = program.labels, program.tags
    last = max(tag.iteration for tag in tags)
    iteration_of = np.array([tag.iteration for tag in tags])
    in_pipeline = np.array([tag.micro_batch >= 0 for tag in tags])
    streams = np.array([label.stream for label in labels])
    category = np.array([label.category for label in labels])
    flops_of = np.array([label.flops for label in labels])
    peak_of = np.array([label.peak_seconds for label in labels])
    groups = np.array([label.group for label in labels])
    work = ~np.isin(streams, ("pp_send", "pp_recv", "dp", "host", "launch", "offload", "prefetch", "cpu"))
    receipts = _receipts(program, played)
    lanes: list[dict[str, np.ndarray]] = [{} for _ in program.classes.count]
    first, end, begin = np.inf, 0.0, 0.0
    for lane, rows in zip(program.plan.lanes, played.rows):
        iteration = iteration_of[rows[:, 1].astype(int)]
        own = rows[iteration == last]
        lanes[lane.owner][lane.name] = own
        if len(own):
            end = max(end, float(own[:, 3].max()))
        before = rows[iteration < last]
        if len(before):
            begin = max(begin, float(before[:, 3].max()))
    finish = 0.0
    for own in (part for by_name in lanes for part in by_name.values()):
        piped = own[in_pipeline[own[:, 1].astype(int)] & work[own[:, 0].astype(int)]]
        if len(piped):
            first, finish = min(first, float(piped[:, 2].min())), max(finish, float(piped[:, 3].max()))
    count = len(program.classes.count)
    breakdown = np.zeros((count, len(BREAKDOWN)))
    waiting, busy, flops, peak_seconds, launching = (np.zeros(count) for _ in range(5))
    hidden: dict[str, np.ndarray] = {}
    total: dict[str, np.ndarray] = {}
    starved: list[np.ndarray] = []
    for number, by_name in sorted(enumerate(lanes), key=lambda entry: "host" not in entry[1]):
        own = _join(by_name.get("compute"), by_name.get("beside"))
        label = own[:, 0].astype(int)
        lanes_of_gpu = [by_name[key] for key in COMPUTING_LANES if key in by_name]
        # A class that is faster than others may have begun the iteration before the one before it was over.
        computing, seconds, free = owned_seconds(
            [rows[is_computing(rows, category)] for rows in lanes_of_gpu], begin, end
        )
        _spread(breakdown[number], labels, computing[:, 0].astype(int), seconds, category)
        waits = _waits(lanes_of_gpu, category, in_pipeline, finish)
        others = []
        for name in WAITED_FOR:
            inline = own[category[label] == CATEGORIES.index(name)]
            waited = waits.get(CATEGORIES.index(name), (np.empty(0), np.empty(0)))
            others.append(tuple(np.concatenate(pair) for pair in zip((inline[:, 2], inline[:, 3]), waited)))
        for name in WAITED_FOR[:-1]:
            parts = [
                rows[category[rows[:, 0].astype(int)] == CATEGORIES.index(name)]
                for key, rows in by_name.items()
                if key not in COMPUTING_LANES
            ]
            if name == "exposed_pp":
                parts = [receipts[number], *(parts if blocking else ())]
            elif name == "data" and "host" in by_name:
                parts = [_awaited(_join(*parts), own, *free)]
                starved += parts
            elif name == "data":
                parts = starved  # later stages stand still with the first one
            joined = _join(*parts)
            others.append((joined[:, 2], joined[:, 3]))
        launched = _launched(by_name.get("launch"), own, *free)
        others.append((launched[:, 2], launched[:, 3]))
        amounts, idle = attribute(*free, others)
        for name, amount in zip((*WAITED_FOR, *WAITED_FOR), amounts):
            breakdown[number, CATEGORIES.index(name)] += max(amount, 0.0)
        idle = max(idle, 0.0)
        idle_inside = min(idle, max(attribute(*clipped(*free, first, finish), others)[1], 0.0))
        breakdown[number, _BUBBLE] += idle_inside
        breakdown[number, _OTHER] += idle - idle_inside
        launching[number] = breakdown[number, _LAUNCH]
        breakdown[number, _OTHER] += launching[number]
        breakdown[number, _LAUNCH] = 0.0
        s, e = clipped(*_passes(lanes_of_gpu, in_pipeline), first, finish)
        busy[number] = float((e - s).sum())
        waiting[number] = max(finish - first - busy[number], 0.0)
        flops[number], peak_seconds[number] = flops_of[label].sum(), peak_of[label].sum()
        beside = [(name, *seconds) for name, seconds in hidden_seconds(by_name, category, groups).items()]
        for index, times in zip(*(each.tolist() for each in np.unique(label, return_counts=True))):
            beside += [(name, times * part, times * whole) for name, part, whole in labels[index].hidden]
        for name, part, whole in beside:
            hidden.setdefault(name, np.zeros(count))[number] += part
            total.setdefault(name, np.zeros(count))[number] += whole
    return Accounts(
        end - begin, (first, finish), breakdown, waiting, busy, flops, peak_seconds, launching, hidden, total
    )


def _waits(
    lanes: list[np.ndarray], category: np.ndarray, in_pipeline: np.ndarray, finish: float
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By category, (starts, ends) of waits for the other members of a collective, which belong to it within a pass.

    After the passes they do so from `finish` on, when the last stage has done its own; until then it is a bubble.
    """
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for own in lanes:
        kind = category[own[1:, 0].astype(int)]
        same_pass, late = own[1:, 1] == own[:-1, 1], own[1:, 2] > own[:-1, 3]
        waits = same_pass & late & ~np.isin(kind, (_COMPUTE, _OPTIMIZER, _LAUNCH))
        begins, finishes, kind = own[:-1, 3][waits], own[1:, 2][waits], kind[waits]
        after = ~in_pipeline[own[1:, 1][waits].astype(int)]
        begins = np.where(after, np.clip(finish, begins, finishes), begins)
        for each in np.unique(kind):
            found.setdefault(int(each), []).append((begins[kind == each], finishes[kind == each]))
    return {
        each: (np.concatenate([begins for begins, _ in parts]), np.concatenate([finishes for _, finishes in parts]))
        for each, parts in found.items()
    }


def _passes(lanes: list[np.ndarray], in_pipeline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When passes were under way: from the first to the last op of each, waiting for its own communication included."""
    starts, ends = [], []
    for rows in lanes:
        tag = rows[:, 1].astype(int)
        first = np.nonzero(np.diff(tag, prepend=-1))[0]
        last = np.append(first[1:], len(rows)) - 1
        piped = in_pipeline[tag[first]]
        starts.append(rows[first[piped], 2])
        ends.append(rows[last[piped], 3])
    return union(np.concatenate(starts), np.concatenate(ends))


def _spread(row: np.ndarray, labels: list[Label], label: np.ndarray, seconds: np.ndarray, category: np.ndarray) -> None:
    """Add the seconds of the compute lane's ops to their categories, a block's by its shares."""
    per_label = np.bincount(label, weights=seconds, minlength=len(labels))
    for index in np.nonzero(per_label)[0]:
        shares = labels[index].shares
        if shares is None:
            row[category[index]] += per_label[index]
        else:
            row[: len(CATEGORIES)] += per_label[index] * np.array(shares[:-1])
            row[_BUBBLE] += per_label[index] * shares[-1]


def _receipts(program: Program, played: Played) -> list[np.ndarray]:
    """By class: rows of the transfers that it receives."""
    peer = np.array([label.peer for label in program.labels])
    found: list[list[np.ndarray]] = [[] for _ in program.classes.count]
    for lane, rows in zip(program.plan.lanes, played.rows):
        if lane.name == "pp_send":
            to = peer[rows[:, 0].astype(int)]
            for number in np.unique(to):
                found[number].append(rows[to == number])
    return [_join(*parts) for parts in found]


def _awaited(loads: np.ndarray, own: np.ndarray, opens: np.ndarray, closes: np.ndarray) -> np.ndarray:
    """Rows of the waits for data: gaps that a pass ends whose micro-batch was still being loaded in the gap.

    A loader is busy most of the time; only what a pass waited for is time lost to data.
    """
    loaded = {tag: done for tag, done in loads[:, (1, 3)].tolist()}  # the last op of each load
    tag_at = dict(zip(own[:, 2].tolist(), own[:, 1].tolist()))
    waits = [
        (0.0, 0.0, opened, min(loaded[tag_at[closed]], closed))
        for opened, closed in zip(opens.tolist(), closes.tolist())
        if loaded.get(tag_at.get(closed), 0.0) > opened
    ]
    return np.array(waits).reshape(-1, 4)


def _launched(launches: np.ndarray | None, own: np.ndarray, opens: np.ndarray, closes: np.ndarray) -> np.ndarray:
    """Rows of the waits for the host: in a gap, the launch of the pass before it (not over yet) or behind it."""
    if launches is None or not len(opens):
        return np.empty((0, 4))
    before = dict(zip(own[:, 3].tolist(), own[:, 1].tolist()))
    behind = dict(zip(own[:, 2].tolist(), own[:, 1].tolist()))
    waits = []
    for gap, (_, tag, begin, end) in zip(np.searchsorted(closes, launches[:, 3]).tolist(), launches.tolist()):
        if gap < len(opens) and opens[gap] < end and tag in (before.get(opens[gap]), behind.get(closes[gap])):
            waits.append((0.0, 0.0, max(begin, opens[gap]), end))
    return np.array(waits).reshape(-1, 4)


def _join(*parts: np.ndarray | None) -> np.ndarray:
    present = [part for part in parts if part is not None and len(part)]
    return np.concatenate(present) if present else np.empty((0, 4))
