"""Peak memory of published runs against the simulated one, and whether runs that ran are said to fit."""

from typing import TYPE_CHECKING, Any

from llmsim.validation.summary import figures

if TYPE_CHECKING:
    import pandas as pd


def memory_summary(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """One row per source with memory figures, then one for all: n, median, p90, worst, bias, `fits` and `ran`.

    frame: of `llmsim.validation.run.validate`. fits: share of the simulated runs that are said to fit, each of which
    ran when it was measured; `ran` is their number. Errors follow each source's definition (allocated, reserved,
    device).
    """
    groups = [(source, part) for source, part in frame.groupby("source", sort=False)]
    rows = [{"source": name} | _row(part) for name, part in [*groups, ("all", frame)]]
    return [row for row in rows if row["n"]]


def _row(part: "pd.DataFrame") -> dict[str, Any]:
    errors = part["memory_error"].dropna().astype(float)
    verdicts = part["fits"].dropna().astype(bool)
    known = figures(errors) if len(errors) else {"n": 0}
    return known | {"fits": float(verdicts.mean()) if len(verdicts) else None, "ran": len(verdicts)}
