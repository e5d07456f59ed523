"""The trace: one DataFrame row an op (columns in `COLUMNS`). Missing integers are -1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmsim.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "rank": "int32",  # representative
    "ranks": "int32",  # how many it stands for
    "stage": "int32",
    "stream": "category",
    "kind": "category",
    "name": "category",
    "phase": "category",
    "micro_batch": "int32",
    "chunk": "int32",
    "layer": "int32",
    "group": "category",
    "start_s": "float64",
    "end_s": "float64",
    "flops": "float64",
    "bytes": "float64",
    "exposed": "float64",  # of a block: the share of its time in which its GPU communicates or waits, not computes
    "iteration": "int32",
}
_DEFAULTS = {"ranks": 1, "kind": "compute", "group": "", "flops": 0.0, "bytes": 0.0, "exposed": 0.0, "iteration": 0}


def trace_frame(rows: Sequence[dict]) -> "pd.DataFrame":
    """A trace from plain rows; what a row leaves out is -1, one rank, or empty."""
    columns = {name: [row.get(name, _DEFAULTS.get(name, -1)) for row in rows] for name in COLUMNS}
    return _ordered(columns)


_LARGEST = 2**31 - 1  # of a rank, stage, layer or micro-batch: the table keeps them in 32 bits
_TEXTS = ("stream", "kind", "name", "phase", "group")


def checked_trace(table: "pd.DataFrame", path: str) -> "pd.DataFrame":
    """A trace as it was saved. Raises `UserError` for a table of another kind: columns, numbers, times."""
    import pandas as pd

    if "exposed" not in table.columns:  # saved by a version that did not have it
        table = table.assign(exposed=0.0)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        has = ", ".join(map(str, table.columns))
        raise UserError(
            f"{path}: this is no trace of `llmsim run --trace`: the column {missing[0]} is missing; it has {has[:200]}"
        )
    if table.empty:
        raise UserError(f"{path}: this trace has no op")
    columns = {}
    for name, kind in COLUMNS.items():
        if name in _TEXTS:
            columns[name] = table[name].astype(str)
            continue
        numbers = pd.to_numeric(table[name].astype(object), errors="coerce").to_numpy(dtype=float)
        least, most = (-1.0, float(_LARGEST)) if kind == "int32" else (0.0, 1e30)
        good = (numbers >= least) & (numbers <= most)  # false for NaN
        if kind == "int32":
            good &= numbers == np.floor(numbers)
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            what = "a whole number of at least -1" if kind == "int32" else "a number of at least 0"
            raise UserError(f"{path}: row {row + 1}: {name} is {str(table[name].iloc[row])[:40]!r}; expected {what}")
        columns[name] = numbers
    late = np.flatnonzero(columns["end_s"] < columns["start_s"])
    if len(late):
        raise UserError(f"{path}: row {late[0] + 1}: end_s is before start_s")
    return _ordered(columns)


def trace_from_arrays(
    columns: dict[str, np.ndarray], texts: dict[str, tuple[np.ndarray, list[str]]], more: Sequence[str] = ()
) -> "pd.DataFrame":
    """A trace from whole columns; `texts` gives each text column as (codes, categories), `more` names further ones."""
    import pandas as pd

    data: dict = dict(columns)
    for name, (codes, values) in texts.items():
        data[name] = pd.Categorical.from_codes(codes, values)
    return _ordered(data, more)


def _ordered(columns: dict, more: Sequence[str] = ()) -> "pd.DataFrame":
    """Rows by start, rank, stream, end: the same scenario gives the same table, row order included."""
    import pandas as pd

    frame = pd.DataFrame({name: columns[name] for name in (*COLUMNS, *more)}).astype(COLUMNS)
    order = np.lexsort((frame["end_s"], frame["stream"].astype(str), frame["rank"], frame["start_s"]))
    return frame.iloc[order].reset_index(drop=True)
