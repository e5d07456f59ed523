"""The trace: one DataFrame row an op (columns in `COLUMNS`). Missing integers are -1."""

from collections.abc import Mapping, Sequence
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
    "iteration": "int32",
    "lane": "category",  # rows of one lane run one after another; what computation waits for is on its own
    "inside": "category",  # of a block: what its time is spent on, as `compute:0.75 exposed_tp:0.25`
}
_DEFAULTS = {"ranks": 1, "kind": "compute", "group": "", "flops": 0.0, "bytes": 0.0, "iteration": 0, "inside": ""}


def trace_frame(rows: Sequence[dict]) -> "pd.DataFrame":
    """A trace from plain rows; what a row leaves out is -1, one rank, or empty."""
    rows = [{"lane": lane_of(str(row.get("stream", "compute"))), **row} for row in rows]
    columns = {name: [row.get(name, _DEFAULTS.get(name, -1)) for row in rows] for name in COLUMNS}
    return _ordered(columns)


_LARGEST = 2**31 - 1  # of a rank, stage, layer or micro-batch: the table keeps them in 32 bits
_TEXTS = ("stream", "kind", "name", "phase", "group", "lane", "inside")


def checked_trace(table: "pd.DataFrame", path: str) -> "pd.DataFrame":
    """A trace as it was saved. Raises `UserError` for a table of another kind: columns, numbers, times."""
    import pandas as pd

    # A trace that was saved by a version without these, or made by hand.
    if "lane" not in table.columns and "stream" in table.columns:
        table = table.assign(lane=[lane_of(str(stream)) for stream in table["stream"]])
    if "inside" not in table.columns:
        table = table.assign(inside="")
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
        try:
            numbers = pd.to_numeric(table[name].astype(object), errors="coerce").to_numpy(dtype=float)
        except OverflowError:
            raise UserError(f"{path}: {name} has a whole number of more than 300 digits") from None
        least, most = (-1.0, float(_LARGEST)) if kind == "int32" else (0.0, 1e30)
        good = (numbers >= least) & (numbers <= most)  # false for NaN
        if kind == "int32":
            good &= numbers == np.floor(numbers)
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            what = "a whole number of at least -1" if kind == "int32" else "a number of at least 0"
            raise UserError(f"{path}: row {row + 1}: {name} is {str(table[name].iloc[row])[:40]!r}; expected {what}")
        columns[name] = numbers
    for text in columns["inside"].unique():
        if inside_of(text) is None:
            row = int(np.flatnonzero((columns["inside"] == text).to_numpy())[0])
            raise UserError(f"{path}: row {row + 1}: inside is {text[:40]!r}; expected shares such as compute:0.75")
    late = np.flatnonzero(columns["end_s"] < columns["start_s"])
    if len(late):
        raise UserError(f"{path}: row {late[0] + 1}: end_s is before start_s")
    return _ordered(columns)


def lane_of(stream: str) -> str:
    """The lane of an op about which no more is known: computation waits for its communication."""
    return "compute" if stream in ("tp", "cp", "ep") else stream


def inside_text(shares: Mapping[str, float]) -> str:
    """A row's `inside`: what its time is spent on, by part of the breakdown (or `idle`); empty for a plain op."""
    return " ".join(f"{name}:{share!r}" for name, share in shares.items() if share)


def inside_of(text: str) -> dict[str, float] | None:
    """The shares that `inside_text` wrote; None for another text."""
    shares = {}
    for part in text.split():
        name, _, share = part.partition(":")
        try:
            shares[name] = float(share)
        except ValueError:
            return None
    good = all(share >= 0.0 for share in shares.values()) and sum(shares.values()) <= 1.0 + 1e-6
    return shares if good else None


def trace_from_arrays(columns: dict[str, np.ndarray], texts: dict[str, tuple[np.ndarray, list[str]]]) -> "pd.DataFrame":
    """A trace from whole columns; `texts` gives each text column as (codes, categories)."""
    import pandas as pd

    data: dict = dict(columns)
    for name, (codes, values) in texts.items():
        data[name] = pd.Categorical.from_codes(codes, values)
    return _ordered(data)


def _ordered(columns: dict) -> "pd.DataFrame":
    """Rows by start, rank, stream, end: the same scenario gives the same table, row order included."""
    import pandas as pd

    frame = pd.DataFrame({name: columns[name] for name in COLUMNS}).astype(COLUMNS)
    order = np.lexsort((frame["end_s"], frame["stream"].astype(str), frame["rank"], frame["start_s"]))
    return frame.iloc[order].reset_index(drop=True)
