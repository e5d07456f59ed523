"""A user's own schedule: a CSV or JSON table of ops, checked before anything is played.

CSV, one op a row: `rank, kind, stage, micro_batch` and, when wanted, `direction` (0 when missing) and
`position` (the place in the rank's order; else rows count from top to bottom). The backward half of an FB
block is in `stage_b, micro_batch_b, direction_b`. Lines that start with `#` are comments. JSON: a list of ops
(kind, direction, stage, micro-batch) for each rank, `{"orders": [[["F", 0, 0, 0], ...], ...]}`.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llmsim.documents import parse_json
from llmsim.errors import ScheduleError, nearest
from llmsim.files import read_text, write_text, written
from llmsim.parallel.schedules.evaluate import evaluate
from llmsim.parallel.schedules.order import KINDS, Op, Schedule, freeze, op_text, parts

REQUIRED = ("rank", "kind", "stage", "micro_batch")
BLOCK = ("stage_b", "micro_batch_b")
COLUMNS = ("rank", "position", "kind", "direction", "stage", "micro_batch", "direction_b", *BLOCK)


@dataclass(frozen=True)
class Row:
    """One op of the file, and where it stands there for messages."""

    rank: int
    position: int
    op: Op
    where: str


def read_table(path: str | Path) -> Schedule:
    """Read and check a schedule table.

    Every micro-batch passes every virtual stage exactly once forward and once backward, each stage stays on
    one rank, and the order can be played. Raises `ScheduleError` naming the file and the line.
    """
    path = Path(path)
    text = read_text(path, ScheduleError, "a schedule table in CSV or JSON")
    rows = list(_json_rows(path, text) if path.suffix.lower() == ".json" else _csv_rows(path, text))
    if not rows:
        raise ScheduleError(f"{path}: the table holds no op; expected rows of {', '.join(REQUIRED)}")
    placement, m = _check_rows(path, rows)
    ranks = {row.rank for row in rows}
    if (idle := next((rank for rank in range(len(ranks)) if rank not in ranks), None)) is not None:
        raise ScheduleError(f"{path}: rank {idle} has no op; expected ranks 0 to {max(ranks)} without a gap")
    orders: list[list[Row]] = [[] for _ in ranks]
    for row in rows:
        orders[row.rank].append(row)
    for ops in orders:
        ops.sort(key=lambda row: row.position)
        for before, after in pairwise(ops):
            if before.position == after.position:
                raise ScheduleError(f"{after.where}: position {after.position} of rank {after.rank} is taken already")
    copies = 1 if len(placement) == 1 or placement[0] == placement[1] else len(placement)
    ordered = freeze((row.op for row in ops) for ops in orders)
    schedule = Schedule(path.stem, len(orders), m * len(placement), ordered, placement, copies)
    try:
        evaluate(schedule, 1.0, 1.0, 1.0)
    except ScheduleError as error:
        raise ScheduleError(f"{path}: {error}") from None
    return schedule


def write_table(schedule: Schedule, path: str | Path) -> None:
    """Write a schedule as a table that `read_table` reads back; JSON when the name ends so, CSV otherwise."""
    path = Path(path)
    if path.suffix.lower() == ".json":
        ops = ",\n".join(" [" + ", ".join(json.dumps(op) for op in ops) + "]" for ops in schedule.orders)
        write_text(f'{{"orders": [\n{ops}\n]}}\n', path)
        return
    columns = COLUMNS if schedule.overlapped else COLUMNS[:6]
    with written(path) as place, place.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for rank, ops in enumerate(schedule.orders):
            for position, op in enumerate(ops):
                row = (rank, position, *op)
                writer.writerow(row + ("",) * (len(columns) - len(row)))


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        yield from _rows_of(path, text)
    except csv.Error as error:
        raise ScheduleError(f"{path}: this is not CSV: {error}; expected a schedule table") from None


def _rows_of(path: Path, text: str) -> Iterator[Row]:
    # A comment becomes an empty line, which csv skips while it goes on counting lines.
    lines = ["" if line.lstrip().startswith("#") else line for line in text.splitlines()]
    reader = csv.reader(lines)
    header = next((cells for cells in reader if cells), [])
    names = [cell.strip().lower() for cell in header]
    where = f"{path}, line {max(1, reader.line_num)}"
    for name in names:
        if name not in COLUMNS:
            hint = nearest(name, COLUMNS)
            raise ScheduleError(f"{where}: column {name!r} is not known; expected {', '.join(COLUMNS)}{hint}")
    if missing := [name for name in REQUIRED if name not in names]:
        raise ScheduleError(f"{where}: column {missing[0]!r} is missing; expected {', '.join(REQUIRED)}")
    for count, cells in enumerate(cells for cells in reader if any(cell.strip() for cell in cells)):
        where = f"{path}, line {reader.line_num}"
        if len(cells) > len(names):
            raise ScheduleError(f"{where}: {len(cells)} values for {len(names)} columns")
        row = {name: cell.strip() for name, cell in zip(names, cells)}
        kind = _kind(row.get("kind", ""), where)
        first = (
            _number(row, "direction", where, 0),
            *(_number(row, key, where) for key in ("stage", "micro_batch")),
        )
        second: tuple = ()
        if kind == "FB":
            second = (_number(row, "direction_b", where, 0), *(_number(row, key, where) for key in BLOCK))
        elif filled := [key for key in BLOCK if row.get(key)]:
            raise ScheduleError(f"{where}: {filled[0]} belongs to an FB block; a {kind} has one stage and micro-batch")
        position = _number(row, "position", where, count)
        yield Row(_number(row, "rank", where), position, (kind, *first, *second), where)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    content = parse_json(text, str(path), ScheduleError)
    orders = content.get("orders") if isinstance(content, dict) else content
    if not isinstance(orders, list) or not all(isinstance(ops, list) for ops in orders):
        raise ScheduleError(f'{path}: expected {{"orders": [[["F", 0, 0, 0], ...], ...]}}, a list of ops for each rank')
    for rank, ops in enumerate(orders):
        for position, op in enumerate(ops):
            where = f"{path}, op {position} of rank {rank}"
            if not isinstance(op, list) or not op:
                raise ScheduleError(f"{where}: {op!r} is not an op; expected such as ['F', 0, 0, 0]")
            kind = _kind(op[0], where)
            expected = "direction, stage, micro-batch" + (" of F and of B" if kind == "FB" else "")
            if len(op) != (7 if kind == "FB" else 4):
                raise ScheduleError(f"{where}: {kind} has {len(op) - 1} numbers; expected {expected}")
            for value in op[1:]:
                if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                    raise ScheduleError(f"{where}: {value!r} is not a whole number of at least 0; expected {expected}")
            yield Row(rank, position, tuple(op), where)


def _kind(value: object, where: str) -> str:
    if value not in KINDS:
        raise ScheduleError(f"{where}: {value!r} is not a kind of op; expected {', '.join(KINDS)}")
    return str(value)


def _number(row: dict[str, str], key: str, where: str, default: int | None = None) -> int:
    text = row.get(key, "")
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdigit()):
        raise ScheduleError(f"{where}: {key} is {text!r}; expected a whole number of at least 0")
    return int(text)


def _check_rows(path: Path, rows: list[Row]) -> tuple[tuple[tuple[int, ...], ...], int]:
    """The placement and the micro-batches per direction; every op there, once, and each stage on one rank."""
    seen: dict[tuple, Row] = {}
    homes: dict[tuple[int, int], Row] = {}
    for row in rows:
        for kind, d, s, i in parts(row.op):
            home = homes.setdefault((d, s), row)
            if home.rank != row.rank:
                raise ScheduleError(
                    f"{row.where}: stage {s} is on rank {row.rank} here and on rank {home.rank} at "
                    f"{home.where}; a stage stays on one rank"
                )
            for letter in kind:
                first = seen.setdefault((letter, d, s, i), row)
                if first is not row:
                    again = op_text((letter, d, s, i))
                    raise ScheduleError(f"{row.where}: {again} is done already at {first.where}; expected it once")
    directions, stages = 1 + max(d for d, _ in homes), 1 + max(s for _, s in homes)
    if directions > 2:
        raise ScheduleError(f"{path}: direction {directions - 1} is too large; expected 0, or 0 and 1")
    m = 1 + max(i for *_, i in seen)
    for d in range(directions):
        for s in range(stages):
            for i in range(m):
                for letter in "FBW":
                    if (letter, d, s, i) not in seen:
                        what = op_text((letter, d, s, i), directions)
                        raise ScheduleError(
                            f"{path}: {what} is missing; the table goes up to stage {stages - 1} and "
                            f"micro-batch {m - 1}, and each needs F and BW, or F, B and W"
                        )
    return tuple(tuple(homes[d, s].rank for s in range(stages)) for d in range(directions)), m
