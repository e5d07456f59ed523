"""Logs of nccl-tests and rccl-tests as people have them: several tests and jobs of one file, prefixes of launchers.

A file is first split by what stands before each line (`[1,0]<stdout>:`, `0: `, a pod's name; time stamps do not count),
then into runs by the headers that each test prints: its name, its options, its list of devices, its table.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llmsim.errors import CollectiveError
from llmsim.formats.nccl_table import (
    UNKNOWN,
    Columns,
    Row,
    columns,
    find_header,
    find_row,
    find_units,
    read_row,
    with_units,
)

_DEVICE = re.compile(
    r"\bRank\s+(\d{1,8})\s+(?:Group\s+(\d+)\s+)?(?:Pid\s+\d+\s+)?on\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s*(.*?)\s*$"
)
_TESTS = (
    "all_reduce|all_reduce_bias|all_gather|reduce_scatter|broadcast|reduce|alltoallv?|sendrecv|gather|scatter|hypercube"
)
_NAME = re.compile(rf"\b({_TESTS})_perf(?:_mpi|\.exe)?\b(?!\s*:)")  # with a colon it is an error message, no command
_STARTING = re.compile(r"Collective test starting:\s*(\S+)")
_CONCLUDED = re.compile(r"Collective test concluded:\s*(\S+)")
_OPTIONS = re.compile(r"\bnThread\s+\d+\s+nGpus\s+\d+")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What differs from line to line of one process: dates, times of day, seconds since some start.
_CHANGING = re.compile(
    r"\d{4}[-/.]\d\d[-/.]\d\d|\d{1,2}:\d\d:\d\d(?:[.,]\d+)?|(?:(?<=\d)Z|(?<=\d)[+-]\d\d:?\d\d)|\d+\.\d+|\d{9,}"
    r"|\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\w*\s+\d+|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b"
)
_OPERATION = {"alltoall": "all_to_all", "sendrecv": "send_recv"}
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "send_recv")


@dataclass(frozen=True, slots=True)
class NcclRun:
    """One test of a log.

    operation: None where the log does not name it; a name outside `OPERATIONS` where the test is another. rows: with a
    size and a time. hosts: of each rank, empty without a list of devices. missing: the first rank that this list skips.
    doubled: a rank is listed twice. groups: communicators that ran side by side. empty: rows without size or time.
    unread: rows that do not fit the header.
    """

    operation: str | None
    rows: tuple[Row, ...]
    hosts: tuple[str, ...] = ()
    device: str = ""
    missing: int | None = None
    doubled: bool = False
    groups: int = 1
    empty: int = 0
    unread: int = 0

    @property
    def nodes(self) -> int:
        return len(set(self.hosts))

    @property
    def factor(self) -> float | None:
        """busbw over algbw, of the largest row that has both to within a percent."""
        fine = [row for row in self.rows if 0 < row.algbw[1] < 0.01 * row.algbw[0]]
        largest = max(fine, key=lambda row: row.algbw[0], default=None)
        return largest.busbw[0] / largest.algbw[0] if largest else None

    @property
    def guess(self) -> str | None:
        """The operation by its bus factor, where that is unmistakable."""
        ranks = len(self.hosts)
        if self.factor is None or ranks < 3:
            return None
        if abs(self.factor - 2 * (ranks - 1) / ranks) < 0.02:
            return "all_reduce"
        summed = all(row.reduction == "sum" for row in self.rows)
        return "reduce_scatter" if summed and abs(self.factor - (ranks - 1) / ranks) < 0.02 else None


def read_log(path: str | Path) -> tuple[NcclRun, ...]:
    """Raises `CollectiveError` when the file holds no table of nccl-tests."""
    return parse_log(Path(path).read_text("utf-8", errors="replace"), str(path))


def parse_log(text: str, name: str = "log") -> tuple[NcclRun, ...]:
    """As `read_log`, from the text; lines of other programs between those of the test are skipped."""
    lines = _COLOUR.sub("", text).splitlines()
    runs, torn = _runs(lines, name, apart=True)
    if torn:  # what stands before the lines is no name of a process: it counts lines, or seconds
        runs, _ = _runs(lines, name, apart=False)
    if not runs:
        raise CollectiveError(
            f"{name}: there is no table of nccl-tests in it; expected lines such as "
            "'1048576 262144 float sum -1 61.2 17.1 32.1 0'"
        )
    return runs


@dataclass
class _Draft:
    """A run while its lines are read."""

    name: str | None = None
    options: bool = False
    columns: Columns | None = None
    ranks: dict[int, tuple[str, str]] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    doubled: bool = False
    rows: list[Row] = field(default_factory=list)
    unread: int = 0

    @property
    def begun(self) -> bool:
        return bool(self.options or self.columns or self.ranks or self.rows)


class _Stream:
    """The runs of one process, or of all where they cannot be told apart."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.drafts = [_Draft()]

    def take(self, line: str, number: int, heard: list[str]) -> None:
        """One line of it. heard: names of tests in command lines since the last run began."""
        now = self.drafts[-1]
        if found := _STARTING.search(line):
            self._next(now.begun, heard).name = _test(found[1])
        elif found := _CONCLUDED.search(line):
            now.name = now.name or _test(found[1])
        elif _OPTIONS.search(line):
            self._next(now.begun, heard).options = True
        elif found := _DEVICE.search(line):
            now = self._next(bool(now.columns or now.rows), heard)
            now.doubled = now.doubled or int(found[1]) in now.ranks
            now.ranks[int(found[1])] = (found[3], found[4])
            now.groups.add(found[2] or "0")
        elif found := find_header(line):
            self._next(bool(now.columns or now.rows), heard).columns = columns(found[0])
        elif found := find_units(line):
            if now.columns and not now.rows:
                now.columns = with_units(now.columns, found[0], f"{self.where}:{number}")
        elif found := find_row(line):
            known = (now.columns,) if now.columns else UNKNOWN
            rows = [row for row in (read_row(found, each, number) for each in known) if row]
            if not now.columns:
                rows = [row for row in rows if row.consistent and row.seconds]
            now.rows += rows[:1]
            now.unread += not rows and now.columns is not None

    def _next(self, begun: bool, heard: list[str]) -> _Draft:
        """The run that a line belongs to: a new one where the present one has `begun` with what the line begins."""
        if begun:
            self.drafts.append(_Draft())
        now = self.drafts[-1]
        if not now.name and len(set(heard)) == 1:
            now.name = heard[0]
        heard.clear()
        return now


def _runs(lines: Iterable[str], where: str, apart: bool) -> tuple[tuple[NcclRun, ...], bool]:
    """Runs that have a header or rows, and whether parts of one run were torn into several.

    apart: processes are told apart by what stands before their lines.
    """
    streams: dict[str, _Stream] = {}
    heard: list[str] = []
    mentioned: set[str] = set()
    for number, line in enumerate(lines, 1):
        found = next((f for find in _FINDERS if (f := find(line))), None)
        if found:
            key = _origin(line[: found.start()]) if apart else ""
            streams.setdefault(key, _Stream(where)).take(line, number, heard)
        names = [_test(name) for name in _NAME.findall(line)]
        mentioned |= set(names)
        if not found:
            heard += names
    drafts = [draft for stream in streams.values() for draft in stream.drafts]
    tables = [draft for draft in drafts if draft.columns or draft.rows]
    alone = any(draft.ranks for draft in drafts if draft not in tables) and any(not draft.ranks for draft in tables)
    torn = alone or any(not draft.columns for draft in tables) or any(not draft.rows for draft in tables)
    return tuple(_finished(draft, mentioned) for draft in tables), torn


_FINDERS = (_STARTING.search, _CONCLUDED.search, _OPTIONS.search, _DEVICE.search, find_header, find_units, find_row)


def _origin(prefix: str) -> str:
    """What stands before a line of one process, without what changes from line to line."""
    return "".join(_CHANGING.sub("", prefix.rstrip("# \t")).split())


def _test(name: str) -> str:
    """all_to_all of `alltoall_perf`, `/path/alltoall_perf_mpi` and `alltoall`."""
    plain = name.rpartition("/")[2].partition("_perf")[0]
    return _OPERATION.get(plain, plain)


def _finished(draft: _Draft, mentioned: set[str]) -> NcclRun:
    hosts = tuple(host for _, (host, _) in sorted(draft.ranks.items()))
    rows = tuple(row for row in draft.rows if row.size > 0 and row.seconds)
    only = next(iter(mentioned)) if len(mentioned) == 1 else None
    return NcclRun(
        operation=draft.name or only,
        rows=rows,
        hosts=hosts,
        device=next(iter(draft.ranks.values()))[1] if draft.ranks else "",
        missing=next((i for i, rank in enumerate(sorted(draft.ranks)) if i != rank), None),
        doubled=draft.doubled,
        groups=max(1, len(draft.groups)),
        empty=len(draft.rows) - len(rows),
        unread=draft.unread,
    )
