"""Errors of simulated runs in a few numbers: per source and GPU, overall, and the worst runs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def figures(errors: "pd.Series") -> dict[str, float]:
    """n; median, p90 and worst of |error|; signed bias (median error): fractions of the measured time."""
    absolute = errors.abs()
    return {
        "n": len(errors),
        "median": float(absolute.median()),
        "p90": float(absolute.quantile(0.9)),
        "worst": float(absolute.max()),
        "bias": float(errors.median()),
    }


def summary(frame: "pd.DataFrame", by: tuple[str, ...] = ("source", "gpu")) -> "pd.DataFrame":
    """One row per group with `figures` and the number of runs that were not simulated, then one row for all."""
    import pandas as pd

    groups = [(key, part) for key, part in frame.groupby(list(by), sort=False)]
    rows = [dict(zip(by, key)) | _with_missing(part) for key, part in groups]
    rows.append(dict.fromkeys(by, "") | {by[0]: "all"} | _with_missing(frame))
    return pd.DataFrame(rows)


def totals(frame: "pd.DataFrame") -> "pd.DataFrame":
    """`summary` of all runs, and where that mixes sources of unlike noise, of nanotron's sweep and of all others.

    The sweep's runs repeat each other within 7 to 10 % at best (docs/accuracy.md); the others within about 3 %.
    """
    import pandas as pd

    noisy = frame["framework"] == "nanotron"
    parts = {"all but nanotron": frame[~noisy], "nanotron": frame[noisy], "all": frame}
    shown = parts if noisy.any() and not noisy.all() else {"all": frame}
    return pd.DataFrame([{"runs": name} | _with_missing(part) for name, part in shown.items()])


def _with_missing(part: "pd.DataFrame") -> dict[str, Any]:
    done = part["error"].dropna()
    missing = {"not_simulated": len(part) - len(done)}
    return (figures(done.astype(float)) if len(done) else {"n": 0}) | missing


def worst(frame: "pd.DataFrame", count: int = 10) -> "pd.DataFrame":
    """The runs with the largest |error|, largest first."""
    done = frame[frame["error"].notna()]
    return done.loc[done["error"].abs().sort_values(ascending=False).index].head(count)


def not_simulated(frame: "pd.DataFrame") -> "pd.DataFrame":
    """How many runs of which framework were not simulated, by reason."""
    missing = frame[frame["error"].isna()]
    # What follows a semicolon or a number is about that one run.
    reason = missing["reason"].str.replace(
        r"( at time|: \d+ does not|; (?!parallelism|training|model)).*$", "", regex=True
    )
    return missing.assign(reason=reason).groupby(["framework", "reason"]).size().rename("runs").reset_index()


def percent(value: float | None, sign: bool = False) -> str | None:
    """`12.3 %`, or None for a number that does not exist."""
    if value is None or value != value:
        return None
    return f"{100 * value:+.1f} %" if sign else f"{100 * value:.1f} %"
