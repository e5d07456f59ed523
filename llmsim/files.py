"""Files that come in and go out: text read within bounds, results written whole or not at all.

The suffix of a path chooses the format. A result is written beside its place and moved there, so that neither a full
disk nor Ctrl-C leaves half a file.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llmsim.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".parquet", ".csv")
PICTURES = (".png", ".svg", ".pdf")
LARGEST = 256 * 2**20  # bytes of a text that is read whole: a graph of 100,000 GPUs, a log of days

# -- coming in -----------------------------------------------------------------------------------------------------


STANDARD_INPUT = Path("-")


def shown(path: str | Path) -> str:
    """How messages call a file."""
    return "standard input" if Path(path) == STANDARD_INPUT else str(path)


def read_text(path: str | Path, error: type[UserError] = UserError, expected: str = "a text file") -> str:
    """The UTF-8 text of a file, a pipe or standard input, without a byte order mark; line ends become `\\n`.

    Raises `error` in one sentence: no such file, a folder, unreadable, larger than `LARGEST`, or another encoding.
    """
    place = Path(path)
    path = shown(place)
    try:
        if place == STANDARD_INPUT:
            content = sys.stdin.buffer.read(LARGEST + 1)
        else:
            if place.is_dir():
                raise error(f"{path}: this is a folder; expected {expected}")
            if not place.exists():
                raise error(f"{path}: there is no such file; expected {expected}")
            with place.open("rb") as file:
                content = file.read(LARGEST + 1)
    except (OSError, ValueError) as wrong:  # ValueError: a NUL in the name
        raise error(f"{path}: this file cannot be read: {_reason(wrong)}; expected {expected}") from None
    if len(content) > LARGEST:
        raise error(f"{path}: this file is larger than {LARGEST // 2**20} MiB; expected {expected}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        byte = f"byte 0x{content[wrong.start]:02x} on line {line}"
        raise error(f"{path}: this is not UTF-8 text ({byte}); expected {expected}, saved as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_rows(
    path: str | Path, error: type[UserError], expected: str
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names of a CSV table, in lower case, and (line, cells by column) of each row; a missing cell is ''."""
    import csv

    reader = csv.reader(read_text(path, error, expected).split("\n"))
    try:
        columns = [name.strip().lower() for name in next((cells for cells in reader if cells), [])]
        rows = [
            (reader.line_num, dict.fromkeys(columns, "") | {c: cell.strip() for c, cell in zip(columns, cells)})
            for cells in reader
            if cells
        ]
    except csv.Error as wrong:
        raise error(f"{path}:{reader.line_num}: this is not CSV: {wrong}; expected {expected}") from None
    return columns, rows


def read_trace(path: str) -> "pd.DataFrame":
    """A trace that `llmsim run --trace` wrote. Raises `UserError` when there is no such file or it holds no trace."""
    from llmsim.trace import checked_trace

    return checked_trace(_read_table(path), path)


def _read_table(path: str) -> "pd.DataFrame":
    import pandas as pd

    if Path(path).suffix.lower() == ".parquet":
        _need_parquet(path)
        if not Path(path).is_file():
            raise UserError(f"{path}: there is no such trace")
        try:
            return pd.read_parquet(path)
        except Exception as wrong:  # Arrow has errors of its own for each way in which a file may be broken
            raise UserError(f"{path}: this is not a table that can be read: {_reason(wrong)}") from None
    import io

    text = read_text(path, UserError, "a trace that `llmsim run --trace` saved")
    try:
        return pd.read_csv(io.StringIO(text), keep_default_na=False)
    except (ValueError, OverflowError) as wrong:
        raise UserError(f"{path}: this is not a table that can be read: {_reason(wrong)}") from None


# -- going out -----------------------------------------------------------------------------------------------------


def check_output(path: str | None, suffixes: tuple[str, ...]) -> None:
    """Before hours of work rather than after: `UserError` when `path` cannot be written in any of these formats."""
    if path is None:
        return
    target = Path(path)
    check_target(path)
    if target.suffix.lower() not in suffixes:
        raise UserError(f"{path}: the name must end in {' or '.join(suffixes)}")
    if target.suffix.lower() == ".parquet":
        _need_parquet(path)


def check_target(path: str | Path) -> None:
    """`UserError` when nothing can be written there: a folder, in no folder, or where writing is not allowed."""
    target = Path(path)
    try:
        if target.is_dir():
            raise UserError(f"{path}: this is a folder; expected the name of a file to write")
        if not target.parent.is_dir():
            raise UserError(f"{path}: there is no folder {str(target.parent)!r} to write to")
        if _is_device(target):
            return
        with _beside(target):
            pass
    except (OSError, ValueError) as wrong:
        raise UserError(f"{path}: this cannot be written: {_reason(wrong)}") from None


@contextlib.contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """A file to fill, which takes the place of `path` once the block ends well and is gone otherwise.

    It has the suffix of `path`. Raises `UserError` in one sentence when it cannot be written: a full disk, a folder.
    """
    target = Path(path)
    check_target(target)
    try:
        if _is_device(target):  # /dev/stdout and /dev/null are written to, not replaced
            yield target
            return
        with _beside(target) as place:
            yield place
            os.replace(place, target.resolve() if target.is_symlink() else target)
    except OSError as wrong:
        raise UserError(f"{path}: this cannot be written: {_reason(wrong)}") from None


def write_table(table: "pd.DataFrame", path: str | Path) -> None:
    """A DataFrame as Parquet or CSV."""
    with written(path) as place:
        if place.suffix.lower() == ".parquet":
            table.to_parquet(place, index=False)
        else:
            table.to_csv(place, index=False)


def write_text(text: str, path: str | Path) -> None:
    """UTF-8, compressed when the name ends in .gz."""
    content = text.encode("utf-8", "surrogateescape")
    if Path(path).suffix.lower() == ".gz":
        import gzip

        content = gzip.compress(content, mtime=0)
    with written(path) as place:
        place.write_bytes(content)


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """An empty file in the same folder, hidden, with the rights that a new file gets; gone when the block ends."""
    number, name = tempfile.mkstemp(prefix=f".{target.stem[:40]}.", suffix=target.suffix, dir=target.parent)
    place = Path(name)
    try:
        os.close(number)
        if target.exists():
            place.chmod(target.stat().st_mode & 0o777)
        else:
            mask = os.umask(0)
            os.umask(mask)
            place.chmod(0o666 & ~mask)
        yield place
    finally:
        place.unlink(missing_ok=True)


def _is_device(target: Path) -> bool:
    return target.exists() and not target.is_file()


def _reason(wrong: BaseException) -> str:
    """One line: what the system says, without numbers and without the name again."""
    said = getattr(wrong, "strerror", None)
    return (str(said) if said else " ".join(str(wrong).split()) or type(wrong).__name__).rstrip(".")


def _need_parquet(path: str) -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise UserError(f"{path}: Parquet needs pyarrow (pip install pyarrow); a name ending in .csv works")
