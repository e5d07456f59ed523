"""Measured against simulated iteration times of published runs."""

from typing import TYPE_CHECKING

from llmsim.plots.style import CATEGORY_COLOURS, INK, MUTED, empty_note, new_figure, tidy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_BAND = 0.10
_MARKERS = "osD^vP"


def plot_validation(frame: "pd.DataFrame", title: str | None = None) -> "Figure":
    """Measured (x) against simulated (y) seconds an iteration, log axes, ±10 % band; below, the error in percent.

    frame: as `llmsim.validation.run.validate` gives it. Colours and markers tell the frameworks apart.
    """
    import numpy as np

    figure = new_figure(8.4, 9.4)
    upper, lower = figure.subplots(2, 1, height_ratios=[2.6, 1.0], sharex=True)
    done = frame[frame["error"].notna()]
    if done.empty:
        lower.set_axis_off()
        empty_note(upper, "no run was simulated")
        return figure
    low = 0.8 * min(done["measured"].min(), done["simulated"].min())
    high = 1.25 * max(done["measured"].max(), done["simulated"].max())
    line = np.array([low, high])
    upper.fill_between(line, line * (1 - _BAND), line * (1 + _BAND), color="#E3E3E3", linewidth=0, zorder=0)
    upper.plot(line, line, color=MUTED, linewidth=1.0, zorder=1)
    lower.axhspan(-100 * _BAND, 100 * _BAND, color="#E3E3E3", linewidth=0, zorder=0)
    lower.axhline(0.0, color=MUTED, linewidth=1.0, zorder=1)
    names = done["framework"].value_counts().index  # many points first, so that few are not hidden
    for index, name in enumerate(names):
        part = done[done["framework"] == name]
        style = {
            "color": CATEGORY_COLOURS[index % len(CATEGORY_COLOURS)],
            "marker": _MARKERS[index % len(_MARKERS)],
            "s": 26,
            "alpha": 0.85,
            "edgecolor": "white",
            "linewidth": 0.4,
            "zorder": 2 + index,
        }
        median = part["error"].abs().median()
        upper.scatter(part["measured"], part["simulated"], label=f"{name} (n {len(part)}, {median:.1%})", **style)
        lower.scatter(part["measured"], 100 * part["error"], **style)
    upper.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    upper.set_ylabel("simulated (s)", color=INK)
    lower.set_ylabel("error (%)", color=INK)
    lower.set_xlabel("measured iteration time (s)", color=INK)
    median = done["error"].abs().median()
    heading = title or f"{len(done)} published runs, median |error| {median:.1%}, band ±{_BAND:.0%}"
    upper.set_title(heading, loc="left", fontsize=12, color=INK)
    legend = upper.legend(loc="upper left", frameon=False, fontsize=9, title="framework (runs, median |error|)")
    legend.get_title().set_fontsize(9)
    for axes in (upper, lower):
        tidy(axes)
    return figure
