"""What commands print: tables and JSON on stdout, warnings and progress on stderr."""

import json
import math
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_PATIENCE = 1.0  # seconds that a run may take before it shows a progress bar


def print_json(document: object) -> None:
    """One JSON document on stdout; NaN and infinities become null, since JSON has none."""
    click.echo(json.dumps(_plain(document), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())  # numpy scalars and arrays
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        click.echo(f"warning: {sentence}", err=True)


def console() -> "Console":
    """stdout for people: at most 120 columns, and exactly 120 where there is no terminal."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # for `main`, where rich would end with status 1

    probe = Console(highlight=False)
    return Screen(highlight=False, width=min(probe.width, 120) if probe.is_terminal else 120)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1, spare: Sequence[str] = ()
) -> None:
    """Rows under column names; the first `left` columns are text, the others numbers aligned right.

    spare: columns that are left out, in this order, while the table is wider than the terminal.
    """
    out, shown = console(), list(columns)
    cells = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    widths = {name: max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)}
    for name in spare:
        if sum(widths[column] + 2 for column in shown) <= out.width:
            break
        shown.remove(name)

    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        if column in shown:
            table.add_column(column, justify="left" if index < left else "right", no_wrap=index < 1)
    for row in cells:
        table.add_row(*(cell for cell, column in zip(row, columns) if column in shown))
    out.print(table)
    if len(shown) < len(columns):
        missing = ", ".join(column for column in columns if column not in shown)
        out.print(f"A wider terminal also shows: {missing}.", style="dim")


class SlowProgress:
    """A progress bar on stderr that appears only when the work takes more than a second and a person is watching.

    Called with the fraction that is done, 0 to 1.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._begin = time.monotonic()
        self._bar: Progress | None = None
        self._watched = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __call__(self, fraction: float) -> None:
        if not self._watched or time.monotonic() - self._begin < _PATIENCE:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(self._what, total=1.0)
        self._bar.update(self._bar.task_ids[0], completed=min(fraction, 1.0))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
