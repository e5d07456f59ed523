"""The log of nccl-tests (or rccl-tests): its table, and what its header says of the machines."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmsim.errors import CollectiveError

_DEVICE = re.compile(r"Rank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\s+\d+ on\s+(\S+)\s+device\s+\d+\s+\[\S+\]\s+(.+?)\s*$")
_TEST = re.compile(r"\b(all_reduce|all_gather|reduce_scatter|broadcast|alltoall|sendrecv)_perf\b")
_OPERATION = {"alltoall": "all_to_all", "sendrecv": "send_recv"}
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "send_recv")


@dataclass(frozen=True, slots=True)
class NcclLog:
    """operation: None where the log does not tell. rows: (bytes, seconds), out of place. hosts: host of each rank."""

    operation: str | None
    rows: tuple[tuple[float, float], ...]
    hosts: tuple[str, ...]
    device: str

    @property
    def nodes(self) -> int:
        return len(set(self.hosts))


def read_log(path: str | Path) -> NcclLog:
    """Raises `CollectiveError` when the file holds no table of nccl-tests."""
    return parse_log(Path(path).read_text("utf-8", errors="replace"), str(path))


def parse_log(text: str, name: str = "log") -> NcclLog:
    """As `read_log`, from the text; lines of other programs between those of the test are skipped."""
    ranks: dict[int, tuple[str, str]] = {}
    tests: list[str] = []
    table: list[tuple[float, str, list[float]]] = []
    for line in text.splitlines():
        if found := _DEVICE.search(line):
            ranks[int(found[1])] = (found[2], found[3])
        elif row := _row(line):
            table.append(row)
        tests += _TEST.findall(line)
    if not table:
        raise CollectiveError(
            f"{name}: there is no table of nccl-tests in it; expected lines such as "
            "'1048576 262144 float sum -1 61.2 17.1 32.1 0'"
        )
    rows = tuple((size, numbers[0] * 1e-6) for size, _, numbers in table if numbers[0] > 0 and size > 0)
    hosts = tuple(host for _, (host, _) in sorted(ranks.items()))
    operation = _OPERATION.get(tests[0], tests[0]) if tests else _by_factor(table, len(hosts))
    return NcclLog(operation, rows, hosts, next(iter(ranks.values()))[1] if ranks else "")


def _row(line: str) -> tuple[float, str, list[float]] | None:
    """(bytes, reduction, [time µs, algbw, busbw]) of one line of the table, with or without a root column."""
    cells = line.split()
    if len(cells) < 8 or not (cells[0].isdigit() and cells[1].isdigit()) or cells[2].replace(".", "").isdigit():
        return None
    rest = cells[4:]
    if len(rest) in (5, 9):
        rest = rest[1:]
    try:
        return float(cells[0]), cells[3], [float(cell) for cell in rest[:3]]
    except ValueError:
        return None


def _by_factor(table: Sequence[tuple[float, str, list[float]]], ranks: int) -> str | None:
    """The operation by its bus factor, where that is unmistakable."""
    large = [(reduction, bus / alg) for _, reduction, (_, alg, bus) in table if alg > 1.0]
    if not large or ranks < 3:
        return None
    reduction, factor = large[-1]
    if abs(factor - 2 * (ranks - 1) / ranks) < 0.02:
        return "all_reduce"
    return "reduce_scatter" if reduction == "sum" and abs(factor - (ranks - 1) / ranks) < 0.02 else None
