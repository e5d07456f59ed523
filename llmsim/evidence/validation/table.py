"""A user's own table of measured runs, with the columns of the shipped ones (docs/calibration.md lists them)."""

from collections.abc import Mapping
from pathlib import Path

from llmsim.errors import CatalogueError, nearest
from llmsim.evidence.validation.clusters import cluster_of
from llmsim.evidence.validation.rows import zero_stage
from llmsim.files import read_rows

# column: what it holds. Everything else may be missing or empty.
NEEDED = {
    "model_name": "text",
    "layers": "a count",
    "hidden": "a count",
    "heads": "a count",
    "vocab": "a count",
    "gpu": "text",
    "n_gpus": "a count",
    "seq_len": "a count",
    "micro_batch": "a count",
    "global_batch_sequences": "a count",
    "precision": "text",
    "iteration_time_s": "seconds",
}
_COUNTS = ("tp", "pp", "vpp", "cp", "ep", "dp", "gpus_per_node")


def read_table(path: str | Path) -> tuple[list[dict[str, str]], int]:
    """(runs, how many lines say that they cannot be simulated or have no time). Lines without an id get their number.

    Raises `CatalogueError` for a file that is no such table, a missing column, or a number that is none.
    """
    columns, lines = read_rows(path, CatalogueError, "a CSV table of measured runs")
    missing = [column for column in NEEDED if column not in columns]
    if len(missing) == 1:
        raise CatalogueError(f"{path}: the column {missing[0]!r} is missing{nearest(missing[0], columns)}")
    if missing:
        raise CatalogueError(f"{path}: the columns {', '.join(missing)} are missing")
    runs = []
    for number, row in lines:
        excluded = row.get("simulatable") in ("0", "0.0") or row.get("status") not in (None, "", "ok")
        if excluded or not row["iteration_time_s"]:
            continue
        row["id"] = row.get("id") or f"line{number}"
        row["dp"] = row.get("dp") or _data_parallel(row)
        _check(row, f"{path}:{number}")
        runs.append(row)
    return runs, len(lines) - len(runs)


def _check(row: Mapping[str, str], place: str) -> None:
    for column, kind in NEEDED.items():
        if kind == "text":
            if not row[column]:
                raise CatalogueError(f"{place}: {column} is empty")
        elif not _positive(row[column], whole=kind == "a count"):
            raise CatalogueError(f"{place}: {column}: {row[column]!r} is not {kind} above 0")
    for column in _COUNTS:
        if row.get(column) and not _positive(row[column], whole=True):
            raise CatalogueError(f"{place}: {column}: {row[column]!r} is not a count above 0")
    if row["dp"] != _data_parallel(row):
        told = f"{row['dp']!r} does not go with the {row['n_gpus']} GPUs and the other degrees"
        raise CatalogueError(f"{place}: dp: {told}; expected {_data_parallel(row)}, or nothing")
    try:
        zero_stage(row.get("zero_stage") or "")
        cluster_of(row)
    except CatalogueError as error:
        raise CatalogueError(f"{place}: {error}") from None


def _positive(text: str, whole: bool) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return 0 < number < float("inf") and (not whole or number == int(number))


def _data_parallel(row: Mapping[str, str]) -> str:
    ranks = 1
    for column in ("tp", "pp", "cp"):
        text = row.get(column) or "1"
        ranks *= int(float(text)) if _positive(text, whole=True) else 1
    gpus = row["n_gpus"]
    return str(max(1, int(float(gpus)) // ranks)) if _positive(gpus, whole=True) else "1"
