"""`sweep`: simulate a scenario at many points, in parallel, and give one row for each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.errors import UserError
from llmsim.files import TABLES, check_output, write_table
from llmsim.scenario import Scenario
from llmsim.studies.sweep.journal import Journal
from llmsim.studies.sweep.outcome import STATUSES, Row, key_of, run_point
from llmsim.studies.sweep.points import Point, expand
from llmsim.studies.sweep.workers import default_workers, run_dask, run_local

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[float], None]


def sweep(
    scenario: Scenario | Mapping[str, Any],
    grid_or_points: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    workers: int | None = None,
    scheduler: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> "pd.DataFrame":
    """One row a point, in the order of the points: its keys, `status`, `reason`, and every metric by its dotted name.

    grid_or_points: see `llmsim.sweeping.points`. Points are simulated with `detail: block` unless they say otherwise.
    Points that are invalid or do not fit in memory are rows with a reason; only a base scenario that is wrong raises.
    workers: processes on this machine, all cores when None. scheduler: `tcp://host:port` of a dask cluster instead.
    out: Parquet or CSV, beside which `OUT.journal` keeps finished runs; resume: go on with those of a killed sweep.
    progress: called with the share of points that are done.
    Raises `UserError` for a grid that cannot be read, a file that cannot be written or a scheduler that is not there.
    """
    if not isinstance(scenario, Scenario):
        scenario = Scenario(**scenario)
    points = expand(grid_or_points)
    if workers is not None and workers < 1:
        raise UserError(f"workers: {workers} is too small; expected at least 1")
    if resume and out is None:
        raise UserError("resume needs the file of the sweep that was interrupted (out)")
    target = None if out is None else _checked(out)
    keys = [key_of(scenario, point) for point in points]
    rows: dict[str, Row] = {}
    with Journal(journal_path(target), resume) if target else nullcontext() as journal:
        done = journal if journal is not None else rows
        todo = {key: point for key, point in zip(keys, points) if key not in done}
        finished = len(set(keys)) - len(todo)
        total = max(1, finished + len(todo))
        for key, row in _rows(scenario, todo.items(), workers, scheduler, len(todo)):
            if journal is not None:
                journal.add(key, row)
            else:
                rows[key] = row
            finished += 1
            if progress is not None:
                progress(finished / total)
        table = _table(points, (journal.row(key) if journal is not None else rows[key] for key in keys))
        if target is not None:
            _write(table, target)
            journal.finish()
    return table


def journal_path(out: str | Path) -> Path:
    """Where the finished runs of a sweep into `out` are kept."""
    return Path(f"{out}.journal")


def _rows(
    scenario: Scenario, todo: Iterable[tuple[str, Point]], workers: int | None, scheduler: str | None, count: int
) -> Iterator[tuple[str, Row]]:
    if scheduler:
        results = run_dask(run_point, scenario, todo, scheduler)
    else:
        results = run_local(run_point, scenario, todo, min(workers or default_workers(), max(1, count)))
    for key, result in results:
        if isinstance(result, BaseException):
            result = {"status": "failed", "reason": f"{type(result).__name__}: {result}"}
        yield key, result


def _table(points: list[Point], rows: Iterable[Row]) -> "pd.DataFrame":
    """Columns: the keys that the points set, status and reason, then metrics in the order in which they first come."""
    import pandas as pd

    keys = list(dict.fromkeys(key for point in points for key in point))
    records = [point_values(point) | row for point, row in zip(points, rows)]
    first = [*keys, "status", "reason"]
    others = dict.fromkeys(name for record in records for name in record if name not in first)
    table = pd.DataFrame(records, columns=[*first, *others])
    table["status"] = pd.Categorical(table["status"], STATUSES).astype(str)
    return table


def point_values(point: Mapping[str, Any]) -> Row:
    """Values as table cells: mappings and lists are written out as text."""
    return {key: str(value) if isinstance(value, dict | list | tuple) else value for key, value in point.items()}


def _checked(out: str | Path) -> Path:
    check_output(str(out), TABLES)
    return Path(out)


def _write(table: "pd.DataFrame", path: Path) -> None:
    write_table(_storable(table) if path.suffix.lower() == ".parquet" else table, path)


def _storable(table: "pd.DataFrame") -> "pd.DataFrame":
    """Columns of mixed types, such as a key set to 4 and to null, as text: Parquet has one type a column."""
    table = table.copy()
    for name in table.columns:
        if table[name].dtype == object and len({type(value) for value in table[name].dropna()}) > 1:
            table[name] = table[name].map(lambda value: value if value is None else str(value))
    return table
