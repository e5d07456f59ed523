"""Where each class's time goes: the ledger of its iteration, from what was played."""

from dataclasses import dataclass

import numpy as np

from llmsim.engine.ledger import attribute, covered, gaps, union
from llmsim.engine.player import Played
from llmsim.program.build import Program
from llmsim.program.labels import CATEGORIES, Label

BREAKDOWN = (*CATEGORIES, "bubble", "other")
_PRECEDENCE = ("exposed_tp", "exposed_cp", "exposed_ep", "exposed_pp", "exposed_dp", "offload", "data")
_COMPUTE, _OPTIMIZER = CATEGORIES.index("compute"), CATEGORIES.index("optimizer")


@dataclass(frozen=True, slots=True)
class Accounts:
    """One iteration, by class. Seconds; `breakdown` rows add up to `iteration`.

    waiting: of pipeline work in the window from the first to the last pipeline op; busy: doing pipeline work.
    launching: waiting for the host to launch kernels, part of what the breakdown calls other.
    hidden and total: communication time beside computation, and in all, by group.
    """

    iteration: float
    window: tuple[float, float]
    breakdown: np.ndarray  # (classes, len(BREAKDOWN))
    waiting: np.ndarray
    busy: np.ndarray
    flops: np.ndarray
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
    waiting, busy, flops, launching = (np.zeros(count) for _ in range(4))
    hidden: dict[str, np.ndarray] = {}
    total: dict[str, np.ndarray] = {}
    starved: list[np.ndarray] = []
    for number, by_name in sorted(enumerate(lanes), key=lambda entry: "host" not in entry[1]):
        own = _join(by_name.get("compute"), by_name.get("beside"))
        label = own[:, 0].astype(int)
        starts, ends = union(own[:, 2], own[:, 3])
        seconds = own[:, 3] - own[:, 2]
        if "beside" in by_name:
            seconds = seconds * (float((ends - starts).sum()) / seconds.sum())  # two lanes share one GPU
        _spread(breakdown[number], labels, label, seconds, category)
        starts, ends = _with_waits(breakdown[number], by_name["compute"], starts, ends, category, in_pipeline, finish)
        free = gaps(starts, ends, begin, end)
        others = []
        for name in _PRECEDENCE:
            parts = [
                rows[category[rows[:, 0].astype(int)] == CATEGORIES.index(name)]
                for key, rows in by_name.items()
                if key not in ("compute", "beside")
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
        for name, amount in zip(_PRECEDENCE, attribute(*free, others)[0]):
            breakdown[number, CATEGORIES.index(name)] += max(amount, 0.0)
        launched = _launched(by_name.get("launch"), own, *free)
        others.append((launched[:, 2], launched[:, 3]))
        launching[number] = attribute(*free, others)[0][-1]
        breakdown[number, BREAKDOWN.index("other")] += launching[number]
        idle_inside = attribute(*_clip(*free, first, finish), others)[1]
        idle = attribute(*free, others)[1]
        breakdown[number, BREAKDOWN.index("bubble")] += idle_inside
        breakdown[number, BREAKDOWN.index("other")] += idle - idle_inside
        s, e = _passes([by_name[key] for key in ("compute", "beside") if key in by_name], in_pipeline)
        busy[number] = float((e - s).sum())
        waiting[number] = finish - first - busy[number]
        flops[number] = flops_of[label].sum()
        _overlap(number, count, by_name, labels, groups, category, hidden, total)
    return Accounts(end - begin, (first, finish), breakdown, waiting, busy, flops, launching, hidden, total)


def _with_waits(
    row: np.ndarray,
    own: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    category: np.ndarray,
    in_pipeline: np.ndarray,
    finish: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Within a pass, waiting for the other members of a collective belongs to the collective that waits.

    After the passes it does so from `finish` on, when the last stage has done its own; until then it is a bubble.
    """
    kind = category[own[:, 0].astype(int)]
    waits = (own[1:, 1] == own[:-1, 1]) & (own[1:, 2] > own[:-1, 3]) & (kind[1:] != _COMPUTE) & (kind[1:] != _OPTIMIZER)
    if not waits.any():
        return starts, ends
    begins, finishes = own[:-1, 3][waits], own[1:, 2][waits]
    after = ~in_pipeline[own[1:, 1][waits].astype(int)]
    begins = np.where(after, np.clip(finish, begins, finishes), begins)
    np.add.at(row, kind[1:][waits], finishes - begins)
    return union(np.concatenate((starts, begins)), np.concatenate((ends, finishes)))


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
            row[_COMPUTE] += per_label[index] * shares[-1]


def _overlap(number, count, by_name, labels, groups, category, hidden, total) -> None:
    """Communication time beside computation, by group of the class."""

    def computing(*lanes: str) -> tuple[np.ndarray, np.ndarray]:
        own = _join(*(by_name.get(lane) for lane in lanes))
        own = own[category[own[:, 0].astype(int)] == _COMPUTE]
        return union(own[:, 2], own[:, 3])

    anywhere = computing("compute", "beside")
    # What a lane says itself hides under the other half of a block only.
    across = {"compute": computing("beside"), "beside": computing("compute")}
    for key, rows in by_name.items():
        label = rows[:, 0].astype(int)
        for group in np.unique(groups[label]):
            if not group:
                continue
            mine = rows[groups[label] == group]
            name = "pp" if group.startswith("pp_") else str(group)
            duration = float((mine[:, 3] - mine[:, 2]).sum())
            beside = covered(*across.get(key, anywhere), mine[:, 2], mine[:, 3])
            total.setdefault(name, np.zeros(count))[number] += duration
            hidden.setdefault(name, np.zeros(count))[number] += beside


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


def _clip(starts: np.ndarray, ends: np.ndarray, begin: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    starts, ends = np.clip(starts, begin, end), np.clip(ends, begin, end)
    return starts[ends > starts], ends[ends > starts]
