"""Every schedule by name: what builds it, how many chunks it takes, and what it needs.

To add one: write a file with a function `(stages, micro_batches, chunks) -> Schedule` and add a line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from numbers import Integral
from pathlib import Path

from llmsim.errors import ScheduleError, nearest
from llmsim.parallel.schedules.dualpipe import check_dualpipe, dualpipe
from llmsim.parallel.schedules.dualpipe_v import check_dualpipe_v, dualpipe_v
from llmsim.parallel.schedules.gpipe import gpipe, gpipe_lifo
from llmsim.parallel.schedules.interleaved import check_interleaved, interleaved
from llmsim.parallel.schedules.looped_bfs import looped_bfs, looped_bfs_fifo
from llmsim.parallel.schedules.one_f_one_b import one_f_one_b
from llmsim.parallel.schedules.order import Schedule
from llmsim.parallel.schedules.table import read_table
from llmsim.parallel.schedules.zb_auto import search
from llmsim.parallel.schedules.zb_h1 import zb_h1
from llmsim.parallel.schedules.zb_h2 import zb_h2
from llmsim.parallel.schedules.zb_v import zb_v, zb_v_torch


@dataclass(frozen=True)
class Entry:
    """One schedule. chunks: taken when the user says none; accepted: numbers of chunks that work, empty
    for any. options: what the builder takes besides stages, micro-batches and chunks."""

    build: Callable[..., Schedule]
    about: str
    chunks: int = 1
    accepted: tuple[int, ...] = (1,)
    check: Callable[[int, int, int], None] | None = None
    options: tuple[str, ...] = ()


MOST_OPS = 200_000  # passes of all ranks, forward or backward: some 20 s
ANY: tuple[int, ...] = ()
OPTIONS = tuple(signature(search).parameters)[3:]

# A rank of DualPipe holds one chunk of each direction of a model cut into p: 1 and 2 say the same there.
REGISTRY: Mapping[str, Entry] = {
    "gpipe": Entry(gpipe, "all forwards, then all backwards"),
    "gpipe-lifo": Entry(gpipe_lifo, "GPipe with the last micro-batch's backward first"),
    "1f1b": Entry(one_f_one_b, "one forward, one backward: GPipe's bubble with at most p activations"),
    "interleaved": Entry(interleaved, "1F1B over several chunks a rank: bubble over v", 2, ANY, check_interleaved),
    "looped-bfs": Entry(looped_bfs, "breadth-first over several chunks a rank, early gradient reduction", 2, ANY),
    "looped-bfs-fifo": Entry(looped_bfs_fifo, "looped-bfs with backwards in the forwards' order", 2, ANY),
    "zb-h1": Entry(zb_h1, "1F1B with split backward: a third of its bubble at its memory"),
    "zb-h2": Entry(zb_h2, "split backward and twice the warm-up: no bubble at twice the memory"),
    "zb-v": Entry(zb_v, "split backward, two chunks in a V: no bubble at 1F1B's memory", 2, (2,)),
    "zb-v-torch": Entry(zb_v_torch, "zb-v with the drain order of torch.distributed.pipelining", 2, (2,)),
    "zb-auto": Entry(search, "the best split-backward order found for given times and memory", options=OPTIONS),
    "dualpipe": Entry(dualpipe, "both directions at once, overlapped, parameters twice", 1, (1, 2), check_dualpipe),
    "dualpipe-v": Entry(dualpipe_v, "DualPipe folded into a V, parameters once", 2, (2,), check_dualpipe_v),
}
ALIASES = {"interleaved-1f1b": "interleaved", "interleaved-grouped": "interleaved", "dualpipev": "dualpipe-v"}


def schedules() -> dict[str, str]:
    """Every schedule's name and what it is in one line."""
    return {name: entry.about for name, entry in REGISTRY.items()}


def default_chunks(name: str) -> int:
    """Parts that a rank's share of the model is cut into when no number is asked for. Raises `ScheduleError`."""
    if is_table(name):
        found = _from_table(name, {})
        return found.virtual_stages // found.stages
    return _entry(name).chunks


def takes_any_chunks(name: str) -> bool:
    """Whether a rank may hold any number of chunks. Raises `ScheduleError`."""
    return not is_table(name) and not _entry(name).accepted


def needs_times(name: str) -> bool:
    """Whether the order depends on measured times, to be given as options to `schedule`."""
    return _is_known(name) and "forward" in _entry(name).options


def schedule(
    name: str | Path,
    stages: int | None = None,
    micro_batches: int | None = None,
    chunks: int | None = None,
    **options: object,
) -> Schedule:
    """A schedule by name, or a user's own from a table (`.csv` or `.json`).

    stages: pipeline ranks. chunks: model chunks per rank, the schedule's own default when None. options: what
    a searching schedule takes (see `zb_auto.search`). For a table the numbers are checked against what it
    holds. Raises `ScheduleError` when the schedule is unknown or cannot run with these numbers.
    """
    if is_table(name):
        return _from_table(name, {"stages": stages, "micro_batches": micro_batches, "chunks": chunks})
    entry = _entry(str(name))
    for key, value in (("stages", stages), ("micro_batches", micro_batches)):
        if value is None:
            raise ScheduleError(f"{key} is missing; schedule {name!r} needs a number of stages and of micro-batches")
    check_schedule(str(name), stages, micro_batches, chunks)
    for option in options:
        if option not in entry.options:
            taken = f"expected one of {', '.join(entry.options)}" if entry.options else "its order is fixed"
            raise ScheduleError(f"schedule {name!r} takes no option {option!r}; {taken}")
    return entry.build(stages, micro_batches, entry.chunks if chunks is None else chunks, **options)


def check_schedule(name: str, stages: int, micro_batches: int, chunks: int | None = None) -> None:
    """Raise `ScheduleError` when a schedule cannot run with these numbers; builds nothing."""
    entry = _entry(name)
    for key, value in (("stages", stages), ("micro_batches", micro_batches), ("chunks", chunks)):
        if key == "chunks" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ScheduleError(f"{key}: {value!r} is not possible; expected a whole number of at least 1")
    passes = 2 * stages * micro_batches * (entry.chunks if chunks is None else chunks)
    if passes > MOST_OPS:
        raise ScheduleError(
            f"micro_batches: {stages} stages and {micro_batches} micro-batches are {passes:,} passes; "
            f"expected at most {MOST_OPS:,}"
        )
    if chunks is not None and entry.accepted and chunks not in entry.accepted:
        many = sorted(other for other, known in REGISTRY.items() if not known.accepted)
        hint = f"; {' and '.join(many[:2])} take any number" if entry.chunks == 1 else ""
        raise ScheduleError(f"chunks: {chunks} does not fit schedule {name!r}; expected {entry.chunks}{hint}")
    if entry.check is not None:
        entry.check(stages, micro_batches, entry.chunks if chunks is None else chunks)


def is_table(name: str | Path) -> bool:
    """Whether a schedule is a user's file and not a name."""
    return isinstance(name, Path) or str(name).lower().endswith((".csv", ".json"))


def _from_table(name: str | Path, wanted: dict[str, int | None]) -> Schedule:
    found = read_table(name)
    for key, value in wanted.items():
        if value is not None and value != getattr(found, key):
            raise ScheduleError(f"{key}: {value} is asked for; the table {str(name)!r} holds {getattr(found, key)}")
    return found


def _is_known(name: object) -> bool:
    return ALIASES.get(str(name), str(name)) in REGISTRY


def _entry(name: str) -> Entry:
    if not _is_known(name):
        known = ", ".join(REGISTRY)
        hint = nearest(name, (*REGISTRY, *ALIASES))
        raise ScheduleError(f"schedule {name!r} is not known; expected one of {known}, or a .csv or .json table{hint}")
    return REGISTRY[ALIASES.get(name, name)]
