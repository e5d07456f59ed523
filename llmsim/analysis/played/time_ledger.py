"""Where each class's time goes: the ledger of its iteration, from what was played."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llmsim.analysis.played.recording import Lanes, Recording
from llmsim.intervals import attribute, union
from llmsim.program.passes.labels import CATEGORIES, Label
from llmsim.program.passes.precedence import (
    COMPUTING_LANES,
    WAITED_FOR,
    Intervals,
    clipped,
    computing_lanes,
    hidden_seconds,
    is_computing,
    owned_seconds,
)

BREAKDOWN = (*CATEGORIES, "bubble", "other")
_COMPUTE, _OPTIMIZER, _LAUNCH = (CATEGORIES.index(name) for name in ("compute", "optimizer", "launch"))
_BUBBLE, _OTHER = BREAKDOWN.index("bubble"), BREAKDOWN.index("other")
# In the order of the contract; launches are among `other`.
_SHOWN = ("compute", "exposed_tp", "exposed_cp", "exposed_ep", "exposed_pp", "exposed_dp", "bubble", "optimizer",
          "offload", "data", "other")  # fmt: skip
_NONE = np.empty(0)


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


def account(recording: Recording, iteration: int | None = None) -> Accounts:
    """The ledger of one iteration: the last one if none is given, in which the pipeline is in its steady state."""
    number = recording.iterations[-1] if iteration is None else iteration
    begin, own = recording.end_before(number), recording.of_iteration(number)
    ends = [rows[:, 3].max(initial=begin) for by_name in own.lanes for rows in by_name.values()]
    return _Tally(own, begin, float(max(ends, default=begin))).accounts()


def mean_breakdown(accounts: Accounts, count: np.ndarray) -> dict[str, float]:
    """Seconds by part of the contract's `time_breakdown`, mean over ranks. count: ranks of each class."""
    share = count / count.sum() if len(count) else count
    seconds = dict(zip(BREAKDOWN, (accounts.breakdown * share[:, None]).sum(axis=0).tolist()))
    return {name: seconds[name] for name in _SHOWN}


def waited_for(recording: Recording, number: int) -> list[tuple[str, Intervals]]:
    """(part of the breakdown, when) of what a class waits for when it does not compute, by precedence.

    First what is in the way of its computation, and waits for others to join it, then what goes on beside it.
    recording: of one iteration. Data and launches are not among it: waiting for them depends on what comes next.
    """
    by_name, category = recording.lanes[number], recording.category
    computing = computing_lanes(by_name)
    waits = _waits(computing, category, recording.in_pipeline, recording.window[1])
    found = []
    for name in WAITED_FOR:
        kind = CATEGORIES.index(name)
        inline = [rows[category[rows[:, 0].astype(int)] == kind] for rows in computing]
        found.append((name, _intervals(inline, *waits.get(kind, ()))))
    for name in WAITED_FOR[:-2]:
        kind = CATEGORIES.index(name)
        beside = [
            rows[category[rows[:, 0].astype(int)] == kind]
            for key, rows in by_name.items()
            if key not in COMPUTING_LANES and (recording.blocking or key != "pp_send")
        ]
        found.append((name, _intervals([*beside, recording.receipts[number]] if name == "exposed_pp" else beside)))
    return found


@dataclass(slots=True)
class _Tally:
    """Adds up one iteration, from `begin` to `end`, class by class."""

    recording: Recording  # of this iteration
    begin: float
    end: float
    starved: list[np.ndarray] = field(default_factory=list)  # waits for data of classes that load some

    def accounts(self) -> Accounts:
        recording, count = self.recording, len(self.recording.lanes)
        first, finish = recording.window
        breakdown = np.zeros((count, len(BREAKDOWN)))
        waiting, busy, flops, peak_seconds = (np.zeros(count) for _ in range(4))
        hidden: dict[str, np.ndarray] = {}
        total: dict[str, np.ndarray] = {}
        for number, by_name in sorted(enumerate(recording.lanes), key=lambda entry: "host" not in entry[1]):
            breakdown[number] = self._breakdown(number)
            starts, ends = clipped(*_passes(recording, by_name), first, finish)
            busy[number] = float((ends - starts).sum())
            waiting[number] = max(finish - first - busy[number], 0.0)
            times = np.bincount(_join(*computing_lanes(by_name))[:, 0].astype(int))
            labels = [(recording.labels[index], int(times[index])) for index in np.flatnonzero(times).tolist()]
            flops[number] = sum(n * label.flops for label, n in labels)
            peak_seconds[number] = sum(n * label.peak_seconds for label, n in labels)
            beside = hidden_seconds(by_name, recording.category, recording.groups)
            found = [(name, *seconds) for name, seconds in beside.items()]
            found += [(name, n * part, n * whole) for label, n in labels for name, part, whole in label.hidden]
            for name, part, whole in found:
                hidden.setdefault(name, np.zeros(count))[number] += part
                total.setdefault(name, np.zeros(count))[number] += whole
        launching = breakdown[:, _LAUNCH].copy()
        breakdown[:, _OTHER] += launching
        breakdown[:, _LAUNCH] = 0.0
        return Accounts(
            self.end - self.begin, (first, finish), breakdown, waiting, busy, flops, peak_seconds, launching, hidden,
            total,
        )  # fmt: skip

    def _breakdown(self, number: int) -> np.ndarray:
        recording, by_name = self.recording, self.recording.lanes[number]
        category, row = recording.category, np.zeros(len(BREAKDOWN))
        lanes = computing_lanes(by_name)
        own = _join(*lanes)
        # A class that is faster than others may have begun the iteration before the one before it was over.
        rows, seconds, free = owned_seconds(
            [rows[is_computing(rows, category)] for rows in lanes], self.begin, self.end
        )
        _spread(row, recording.labels, rows[:, 0].astype(int), seconds, category)
        others = waited_for(recording, number)
        if "host" in by_name:
            starved = _awaited(by_name["host"], own, *free)
            self.starved.append(starved)
        else:
            starved = _join(*self.starved)  # later stages stand still with the first one
        others.append(("data", _intervals([starved])))
        others.append(("launch", _intervals([_launched(by_name.get("launch"), own, *free)])))
        times = [when for _, when in others]
        amounts, idle = attribute(*free, times)
        for (name, _), amount in zip(others, amounts):
            row[CATEGORIES.index(name)] += max(amount, 0.0)
        idle = max(idle, 0.0)
        inside = min(idle, max(attribute(*clipped(*free, *recording.window), times)[1], 0.0))
        row[_BUBBLE] += inside
        row[_OTHER] += idle - inside
        return row


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


def _passes(recording: Recording, by_name: Lanes) -> Intervals:
    """When passes were under way: from the first to the last op of each, waiting for its own communication included."""
    starts, ends = [], []
    for name, rows in by_name.items():
        own = recording.pass_work(name, rows)
        if name not in COMPUTING_LANES:
            starts.append(own[:, 2])
            ends.append(own[:, 3])
            continue
        # Between a forward and its own backward nothing comes from other stages: they count as one.
        first = np.nonzero(np.diff(rows[:, 1].astype(int), prepend=-1))[0]
        last = np.append(first[1:], len(rows)) - 1
        piped = recording.in_pipeline[rows[first, 1].astype(int)]
        starts.append(rows[first[piped], 2])
        ends.append(rows[last[piped], 3])
    return union(np.concatenate([np.empty(0), *starts]), np.concatenate([np.empty(0), *ends]))


def _spread(
    row: np.ndarray, labels: Sequence[Label], label: np.ndarray, seconds: np.ndarray, category: np.ndarray
) -> None:
    """Add the seconds of the compute lane's ops to their categories, a block's by its shares."""
    per_label = np.bincount(label, weights=seconds, minlength=len(labels))
    for index in np.flatnonzero(per_label).tolist():
        shares = labels[index].shares
        if shares is None:
            row[category[index]] += per_label[index]
        else:
            row[: len(CATEGORIES)] += per_label[index] * np.array(shares[:-1])
            row[_BUBBLE] += per_label[index] * shares[-1]


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


def _intervals(parts: Sequence[np.ndarray], starts: np.ndarray = _NONE, ends: np.ndarray = _NONE) -> Intervals:
    """Starts and ends of rows, and of these intervals."""
    joined = _join(*parts)
    return np.concatenate((joined[:, 2], starts)), np.concatenate((joined[:, 3], ends))
