"""Peak memory of published runs against the simulated one, and the verdict on runs that fitted or did not."""

import csv
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from llmsim.evidence.validation.rows import Row, published_rows
from llmsim.evidence.validation.summary import figures

if TYPE_CHECKING:
    import pandas as pd


@lru_cache(maxsize=1)
def out_of_memory_rows() -> tuple[dict[str, str], ...]:
    """Published attempts that ran out of memory: columns of the other tables, without time and memory."""
    text = files("llmsim.catalogue").joinpath("measured/out_of_memory.csv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def memory_rows() -> tuple[Row, ...]:
    """Published runs whose memory was measured, and those that ran out of it."""
    return (*(row for row in published_rows() if row["memory_gib"]), *out_of_memory_rows())


def memory_summary(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """One row per source with memory figures, then one for all.

    frame: of `llmsim.validation.run.validate`. n, median, p90, worst and bias of the error of the peak, by the source's
    own definition (allocated, reserved, device); `right`: the share of verdicts that are right, among `verdicts` runs
    whose memory was measured or that ran out of it.
    """
    told = frame[frame["memory_measured_gib"].notna() | frame["measured"].isna()]
    groups = [(source, part) for source, part in told.groupby("source", sort=False)]
    rows = [{"source": name, "definition": _definition(part)} | _row(part) for name, part in groups]
    return [*rows, {"source": "all", "definition": None} | _row(told)] if rows else []


def _definition(part: "pd.DataFrame") -> str:
    return ", ".join(sorted(set(part["memory_definition"])))


def _row(part: "pd.DataFrame") -> dict[str, Any]:
    errors = part["memory_error"].dropna().astype(float)
    judged = part[part["fits"].notna()]
    right = judged["fits"].astype(bool) == judged["measured"].notna()
    known = figures(errors) if len(errors) else {"n": 0}
    return known | {"right": float(right.mean()) if len(right) else None, "verdicts": len(right)}
