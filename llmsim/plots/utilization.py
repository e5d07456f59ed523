"""Utilisation over time: the mean over stages as areas, and each stage's computing as a heat map."""

from typing import TYPE_CHECKING

import numpy as np

from llmsim.analysis.utilization import stage_utilization
from llmsim.plots.style import COLOURS, HATCH, INK, empty_note, new_figure, tidy, time_unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plot_utilization(
    trace: "pd.DataFrame",
    *,
    bins: int = 240,
    time_range: tuple[float, float] | None = None,
    title: str | None = None,
) -> "Figure":
    """Shares of time spent computing, in exposed communication and idle, over time (`stage_utilization`)."""
    table = stage_utilization(trace, bins, time_range)
    stages = sorted(table["stage"].unique())
    heat = float(np.clip(0.3 * len(stages), 0.9, 4.5))
    figure = new_figure(13.0, 3.4 + heat)
    if not stages:
        empty_note(figure.subplots(), "the trace is empty")
        return figure
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, heat])
    first = table[table["stage"] == stages[0]]
    edges = np.append(first["start_s"].to_numpy(), first["end_s"].iloc[-1])
    scale, unit = time_unit(edges[-1] - edges[0])
    edges = edges / scale
    mean = table.groupby("start_s")[["computing", "communicating", "idle"]].mean()
    computing, talking, idle = (100 * mean[name].to_numpy() for name in mean.columns)
    share = {"computing": computing.mean(), "exposed communication": talking.mean(), "idle": idle.mean()}
    layers = (
        (np.zeros_like(computing), computing, {"facecolor": COLOURS["forward"]}),
        (computing, computing + talking, {"facecolor": COLOURS["communication"]}),
        (
            computing + talking,
            np.full_like(idle, 100.0),
            {"facecolor": "#FAFAFA", "edgecolor": HATCH, "hatch": "////"},
        ),
    )
    for (low, high, look), (name, value) in zip(layers, share.items()):
        look = {"linewidth": 0.0, **look, "label": f"{name} ({value:.1f}%)"}
        above.fill_between(edges, np.append(low, low[-1]), np.append(high, high[-1]), step="post", **look)
    tidy(above)
    above.set_ylim(0, 100)
    above.set_xlim(edges[0], edges[-1])
    above.set_ylabel("mean over stages (% of time)", color=INK)
    above.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, fontsize=10, borderaxespad=0.3)
    grid = table["computing"].to_numpy().reshape(len(stages), -1) * 100
    lines = np.arange(len(stages) + 1) - 0.5
    mesh = below.pcolormesh(edges, lines, grid, cmap="cividis", vmin=0, vmax=100, rasterized=True)
    below.set_ylim(len(stages) - 0.5, -0.5)
    step = max(1, int(np.ceil(len(stages) * 0.15 / heat)))
    below.set_yticks(range(0, len(stages), step), stages[::step])
    below.tick_params(colors=INK, labelsize=9)
    below.set_ylabel("pipeline stage", color=INK)
    below.set_xlabel(f"time ({unit})", color=INK)
    label = "computing (% of time)" if heat > 1.5 else "computing (%)"  # no longer than the bar is high
    figure.colorbar(mesh, ax=below, label=label, pad=0.01, fraction=0.03)
    title = title if title is not None else "Utilisation over time"
    figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    return figure
