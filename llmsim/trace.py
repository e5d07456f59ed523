"""The trace: one DataFrame row an op (columns in `COLUMNS`). Missing integers are -1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

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
