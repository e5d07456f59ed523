"""Curves over tables: bubble against micro-batches, stages or chunks; scaling with the cluster; bus bandwidth."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from llmsim.errors import UserError, nearest
from llmsim.plots.style import CATEGORY_COLOURS, INK, MUTED, new_figure, tidy
from llmsim.units import format_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES = {
    "micro-batches": ("micro_batches", "m", "layout.micro_batches"),
    "pipeline stages": ("stages", "p", "pp", "parallelism.pp", "layout.pp"),
    "chunks per stage": ("chunks", "v", "vpp", "parallelism.vpp", "layout.vpp"),
}
_SIZES = {
    "GPUs": ("gpus",),
    "nodes": ("nodes", "cluster.nodes"),
    "pipeline stages": _AXES["pipeline stages"],
}
_MARKERS = "osD^vP*X"


def plot_bubble_curves(
    table: "pd.DataFrame",
    *,
    x: str | None = None,
    y: str = "bubble_fraction",
    series: str | None = None,
    title: str | None = None,
) -> "Figure":
    """Bubble against one of m, p, v: a line for each value of `series`.

    `table`: a row per run with `y` (a fraction) and columns such as `micro_batches`, `stages`, `chunks`, `schedule`,
    under these names, the papers' letters or scenario keys. `x` defaults to the one with most values, `series` to
    `schedule` or what else varies. Raises `UserError` for a column that is not there.
    """
    _need(table, y)
    known = {column: label for label, columns in _AXES.items() for column in columns if column in table}
    if x is None:
        varying = [column for column in known if table[column].nunique() > 1]
        if not varying:
            raise UserError("no column to plot the bubble against; give one of micro_batches, stages, chunks as x")
        x = max(varying, key=lambda column: table[column].nunique())
    _need(table, x)
    lines = list(_series(table, series, x, [*known, "schedule"]))
    figure = new_figure(9.0, 5.2)
    axes = figure.subplots()
    for index, (label, own) in enumerate(lines):
        own = own.sort_values(x)
        _line(axes, own[x], 100 * own[y], index, label)
    _number_axis(axes, np.unique(table[x].to_numpy(float)))
    axes.set_xlabel(known.get(x, x), color=INK)
    axes.set_ylabel("bubble over busy time (%)" if "over" in y else "bubble (% of the pipeline's span)", color=INK)
    axes.set_ylim(bottom=0)
    _finish(axes, title if title is not None else f"Pipeline bubble against {known.get(x, x)}", len(lines) > 1)
    return figure


def plot_scaling(
    table: "pd.DataFrame", *, x: str | None = None, series: str | None = None, title: str | None = None
) -> "Figure":
    """Throughput (`tokens_per_s`) with the ideal line, and bubble and MFU, against the size of the cluster.

    `table`: a row per run, such as a sweep gives; `x` defaults to `gpus`, else `nodes` or `cluster.nodes`. Raises
    `UserError` for a column that is not there.
    """
    from matplotlib.ticker import EngFormatter, LogLocator

    _need(table, "tokens_per_s")
    names = {column: label for label, columns in _SIZES.items() for column in columns}
    x = x if x is not None else next((column for column in names if column in table), "gpus")
    _need(table, x)
    shares = [c for c in ("bubble_fraction", "mfu") if c in table]
    lines = list(_series(table, series, x, ["schedule"]))
    figure = new_figure(13.0, 4.9) if shares else new_figure(8.0, 4.9)
    panels = np.atleast_1d(figure.subplots(1, 2 if shares else 1))
    sizes = np.unique(table[x].to_numpy(float))
    for index, (label, own) in enumerate(lines):
        own = own.sort_values(x)
        size, speed = own[x].to_numpy(float), own["tokens_per_s"].to_numpy(float)
        ideal = speed[0] / size[0] * size
        text = "ideal (linear from the smallest)" if index == 0 else None
        panels[0].plot(size, ideal, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label=text, zorder=1)
        _line(panels[0], size, speed, index, label or "simulated (% of ideal)")
        if index == 0:
            for a, b, best in zip(size[1:], speed[1:], ideal[1:]):
                panels[0].annotate(
                    f"{b / best:.0%}",
                    (a, b),
                    xytext=(6, -13),
                    textcoords="offset points",
                    fontsize=9,
                    color=MUTED,
                )
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panels[0].yaxis.set_major_formatter(EngFormatter(sep=" "))
    panels[0].minorticks_off()
    panels[0].set_ylabel("throughput (tokens/s)", color=INK)
    styles = {"bubble_fraction": ("bubble", 0, "-"), "mfu": ("MFU", 2, (0, (5, 2)))}
    for name in shares:
        noun, offset, dash = styles[name]
        for index, (label, own) in enumerate(lines):
            own = own.sort_values(x)
            text = f"{label}, {noun}" if label else noun
            _line(panels[1], own[x], 100 * own[name], index + (offset if len(lines) == 1 else 0), text, dash)
    for axes in panels:
        _number_axis(axes, sizes)
        axes.set_xlabel(names.get(x, x), color=INK)
        _finish(axes, None, True)
    if shares:
        panels[1].set_ylim(bottom=0)
        noun = {"bubble_fraction": "bubble (% of the span)", "mfu": "MFU (% of peak)"}
        panels[1].set_ylabel(" · ".join(noun[name] for name in shares), color=INK)
    title = title if title is not None else "Scaling with the cluster"
    figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    return figure


def plot_collective(
    rows: "pd.DataFrame | Iterable[Mapping]", *, peak: float | None = None, title: str | None = None
) -> "Figure":
    """Bus bandwidth against message size (log), a line for each operation and algorithm.

    `rows`: `size` (bytes), `busbw` (bytes/s), and where they vary `algorithm`, `op`; `measured_busbw` is drawn as
    points. `peak` (bytes/s) draws a level. Raises `UserError` when a column is missing.
    """
    import pandas as pd

    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame([dict(row) for row in rows])
    _need(table, "size")
    _need(table, "busbw")
    figure = new_figure(9.5, 5.2)
    axes = figure.subplots()
    for index, (label, own) in enumerate(_series(table, None, "size", ["op", "algorithm", "protocol"])):
        own = own.sort_values("size")
        _line(axes, own["size"], own["busbw"] / 1e9, index, label or "simulated")
        if "measured_busbw" in own:
            colour = CATEGORY_COLOURS[index % len(CATEGORY_COLOURS)]
            text = f"{label}, measured" if label else "measured"
            axes.plot(own["size"], own["measured_busbw"] / 1e9, "x", color=colour, label=text)
    if peak is not None:
        axes.axhline(
            peak / 1e9,
            color=MUTED,
            linestyle=(0, (4, 3)),
            linewidth=1.2,
            label=f"limit {peak / 1e9:.4g} GB/s",
        )
    low, high = (float(table["size"].agg(how)) for how in ("min", "max"))
    axes.set_xscale("log", base=2)
    powers = np.arange(np.floor(np.log2(low)), np.ceil(np.log2(high)) + 1)
    powers = powers[:: max(1, int(np.ceil(len(powers) / 11)))]
    axes.set_xticks(2.0**powers, [format_bytes(2.0**power) for power in powers])
    axes.minorticks_off()
    axes.set_xlabel("message size", color=INK)
    axes.set_ylabel("bus bandwidth (GB/s)", color=INK)
    axes.set_ylim(bottom=0)
    _finish(axes, title if title is not None else "Collective bandwidth by message size", True, "center left")
    return figure


def _need(table: "pd.DataFrame", column: str) -> None:
    if column not in table:
        known = ", ".join(str(name) for name in table.columns) or "none"
        raise UserError(f"the table has no column {column!r}{nearest(column, map(str, table.columns))}; it has {known}")


def _series(
    table: "pd.DataFrame", series: str | None, x: str, candidates: list[str]
) -> Iterable[tuple[str, "pd.DataFrame"]]:
    """(label, rows) of each line: by `series`, else by the candidates that vary besides `x`."""
    if series is not None:
        _need(table, series)
    keys = (
        [series]
        if series
        else [c for c in dict.fromkeys(candidates) if c in table and c != x and table[c].nunique() > 1]
    )
    if not keys:
        return [("", table)]
    groups = table.groupby(keys, sort=False)
    return [(", ".join(_name(key, value) for key, value in zip(keys, values)), own) for values, own in groups]


def _name(key: str, value: object) -> str:
    short = {"micro_batches": "m", "stages": "p", "chunks": "v"}
    if isinstance(value, str):
        return value
    return f"{short.get(key, key.rsplit('.', 1)[-1])} = {value:g}"


def _line(axes: "Axes", x: object, y: object, index: int, label: str, dash: object = "-") -> None:
    """A line that differs from its neighbours by colour and by marker."""
    colour = CATEGORY_COLOURS[index % len(CATEGORY_COLOURS)]
    look = {"color": colour, "marker": _MARKERS[index % len(_MARKERS)], "markeredgecolor": "white"}
    axes.plot(x, y, label=label or None, linestyle=dash, linewidth=2.0, markersize=7, **look)


def _number_axis(axes: "Axes", values: np.ndarray) -> None:
    """Ticks at the values that were run; logarithmic when they span more than a factor of four."""
    if len(values) > 1 and values.min() > 0 and values.max() / values.min() > 4:
        axes.set_xscale("log", base=2)
    shown = values if len(values) <= 12 else values[:: int(np.ceil(len(values) / 12))]
    axes.set_xticks(shown, [f"{value:,.0f}" if value == round(value) else f"{value:g}" for value in shown])
    axes.minorticks_off()


def _finish(axes: "Axes", title: str | None, legend: bool, place: str = "best") -> None:
    tidy(axes)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(title, loc="left", fontsize=13, color=INK)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, frameon=False, fontsize=10)
