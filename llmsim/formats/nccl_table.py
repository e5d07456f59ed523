"""The table of nccl-tests and rccl-tests: what its columns are, and one row of it.

Columns are read by the header, since they differ by version and option: `redop` and `root` come and go (and all-to-all
left `redop` blank for years), `-C` prints `cputime` for `time`, `-S` adds a time stamp, `-I` four columns about single
iterations; rccl-tests has tables of one group (`-O`), `hipevt`, and `algo proto nchannels`. Printing code:
src/common.cu and src/util.cu of NVIDIA/nccl-tests (2.0 of 2017 to 2.19.6) and of ROCm's rccl-tests.
"""

import re
from dataclasses import dataclass

from llmsim.errors import CollectiveError

_HEADER = re.compile(r"\b(?:size|bytes)\s+(?:count|N)\s+type\s.*\balgbw\b.*")
_UNITS = re.compile(r"\(B\)\s+\(elements\)\s.*")
_ROW = re.compile(r"(?<![\w.,])(\d{1,18})\s+(\d{1,18})\s+([A-Za-z]\w*)\s(.*)")
_STAMP = re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")  # of -S; one column in the header, two cells in a row
_LABELS = ("size", "bytes", "count", "N", "type", "redop", "op", "root")  # columns before the measurements
_WITHOUT_UNIT = ("error", "#wrong", "res", "algo", "proto", "nchannels")
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_RATES = {"GB/s": 1e9, "MB/s": 1e6, "KB/s": 1e3, "GiB/s": 2.0**30, "MiB/s": 2.0**20, "Gb/s": 0.125e9, "Gbps": 0.125e9}
_SLACK = 0.02  # relative, beyond rounding, by which size over time may differ from the printed bandwidth
_DIGITS = 0.02  # the coarsest rounding of a bandwidth that a time may be computed from


@dataclass(frozen=True, slots=True)
class Columns:
    """measured: names of the columns after type, redop and root, time stamps left out. time, rate: units in SI."""

    labels: int  # how many of redop and root the header has; rows may leave them blank
    measured: tuple[str, ...]
    time: float = 1e-6
    rate: float = 1e9


@dataclass(frozen=True, slots=True)
class Row:
    """size in bytes, seconds, algbw and busbw in bytes/s, each bandwidth with half of its last printed digit.

    seconds: None where the table has CPU time and the bandwidth is too coarse to tell the time of the collective.
    implied: size over time, with what rounding and `_SLACK` leave open; the row is consistent when algbw is within.
    """

    line: int
    size: float
    reduction: str
    seconds: float | None
    algbw: tuple[float, float]
    busbw: tuple[float, float]
    consistent: bool


# Rows whose header is lost (`grep float`): today's two groups, or one.
UNKNOWN = tuple(Columns(2, ("time", "algbw", "busbw", "#wrong") * groups) for groups in (2, 1))


def find_header(line: str) -> re.Match[str] | None:
    """The names of the columns, if the line has them."""
    return _HEADER.search(line)


def find_units(line: str) -> re.Match[str] | None:
    """The units below the names, if the line has them."""
    return _UNITS.search(line)


def find_row(line: str) -> re.Match[str] | None:
    """The beginning of a row, if the line may have one: size, count and type."""
    return _ROW.search(line)


def columns(header: str) -> Columns:
    """The columns of a header. Tables of 2017 (`bytes N type`) have no units and print milliseconds."""
    names = header.split()
    labels = [name for name in names if name in _LABELS]
    measured = tuple(name for name in names if name not in _LABELS and name != "timestamp")
    return Columns(len(labels) - 3, measured, 1e-3 if names[0] == "bytes" else 1e-6)


def with_units(known: Columns, units: str, where: str) -> Columns:
    """The same columns in the units of the line below; raises `CollectiveError` for one that is unknown."""
    told = re.findall(r"\(([^()]*)\)", units)[2:]
    named = [name for name in known.measured if name not in _WITHOUT_UNIT]
    if len(told) < len(named):
        return known
    units_of = dict(zip(reversed(named), reversed(told[: len(named)])))  # the first group's win
    time, rate = units_of.get("time") or units_of.get("cputime") or "us", units_of.get("algbw", "GB/s")
    for unit, accepted in ((time, _SECONDS), (rate, _RATES)):
        if unit not in accepted:
            raise CollectiveError(f"{where}: the unit ({unit}) is unknown; expected one of {', '.join(accepted)}")
    return Columns(known.labels, known.measured, _SECONDS[time], _RATES[rate])


def read_row(found: re.Match[str], known: Columns, line: int) -> Row | None:
    """One row's out-of-place times (in place where it has no others); None where it does not fit the columns."""
    size, reduction_and_cells = float(found[1]), _STAMP.sub("", found[4]).split()
    labels = len(reduction_and_cells) - len(known.measured)
    cells: dict[str, str] = {}
    if not 0 <= labels <= known.labels:
        return None
    for name, cell in zip(known.measured, reduction_and_cells[labels:]):
        cells.setdefault(name, cell)
    measured = cells.get("time") or cells.get("cputime") or ""
    try:
        time, algbw, busbw = (_number(cell) for cell in (measured, cells["algbw"], cells["busbw"]))
    except (KeyError, ValueError):
        return None
    seconds, rate = time[0] * known.time, (algbw[0] * known.rate, algbw[1] * known.rate)
    consistent = True
    told: float | None = seconds
    if "cputime" in known.measured:  # of the calling thread: the time of the collective is in algbw alone
        told = size / rate[0] if rate[1] <= _DIGITS * rate[0] else None
    elif seconds > 0:
        implied = size / seconds
        consistent = abs(implied - rate[0]) <= rate[1] + implied * (time[1] / time[0] + _SLACK)
    reduction = next((text for text in reduction_and_cells[:labels] if text.isalpha()), "")
    bus = (busbw[0] * known.rate, busbw[1] * known.rate)
    return Row(line, size, reduction, told, rate, bus, consistent)


def _number(cell: str) -> tuple[float, float]:
    """A number as printed, and half of its last digit; `ValueError` for what is none, or not finite."""
    found = re.fullmatch(r"(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d{1,2}))?", cell)
    if not found:
        raise ValueError(cell)
    return float(cell), 0.5 * 10.0 ** (int(found[3] or 0) - len(found[2] or ""))
