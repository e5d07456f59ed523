"""Where results go and where traces come from: the suffix of a path chooses the format."""

from pathlib import Path
from typing import TYPE_CHECKING

from llmsim.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".parquet", ".csv")
PICTURES = (".png", ".svg", ".pdf")


def check_output(path: str | None, suffixes: tuple[str, ...]) -> None:
    """Before hours of work rather than after: `UserError` when `path` cannot be written in any of these formats."""
    if path is None:
        return
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise UserError(f"{path}: the name must end in {' or '.join(suffixes)}")
    if target.is_dir() or not target.parent.is_dir():
        raise UserError(f"{path}: there is no folder {str(target.parent)!r} to write to")
    if target.suffix.lower() == ".parquet":
        _need_parquet(path)


def write_table(table: "pd.DataFrame", path: str) -> None:
    """A DataFrame as Parquet or CSV."""
    if Path(path).suffix.lower() == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)


def read_table(path: str) -> "pd.DataFrame":
    """A trace that `llmsim run --trace` wrote. Raises `UserError` when the file is not there or is no table."""
    import pandas as pd

    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such trace")
    try:
        if Path(path).suffix.lower() == ".parquet":
            _need_parquet(path)
            return pd.read_parquet(path)
        return pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: this is not a table that can be read ({reason})") from None


def write_text(text: str, path: str) -> None:
    """UTF-8, compressed when the name ends in .gz."""
    content = text.encode()
    if Path(path).suffix.lower() == ".gz":
        import gzip

        content = gzip.compress(content, mtime=0)
    Path(path).write_bytes(content)


def _need_parquet(path: str) -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise UserError(f"{path}: Parquet needs pyarrow (pip install pyarrow); a name ending in .csv works")
