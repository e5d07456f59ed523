"""Pictures of a whole job: one run over time, goodput by interval and by cluster size; plain data in, figures out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llmsim.plots.style import CATEGORY_COLOURS, INK, MUTED, empty_note, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DAY = 86400.0
_PRODUCTIVE = "#0072B2"
_LOST = {
    "checkpoint": ("checkpoints", "#56B4E9"),
    "detection": ("noticing", "#D55E00"),
    "restart": ("restart", "#E69F00"),
    "load": ("loading", "#F0E442"),
    "recomputed": ("work done again", "#CC79A7"),
    "degraded": ("slower running", "#009E73"),
    "waiting": ("waiting for nodes", "#3D3D3D"),
}
_MOST_MARKS = 8  # causes in the legend


class Run(Protocol):
    """One run, as `Goodput.example` has it."""

    elapsed: float
    history: Sequence[tuple[float, float]]
    marks: Sequence[tuple[float, str]]
    lost: Mapping[str, float]
    productive: float


def plot_job(run: Run, metrics: Mapping[str, Any], title: str | None = None) -> "Figure":
    """Progress of one run against wall clock with its interruptions, and beneath where the time of all runs went.

    `run` has its history (`Goodput.example`); `metrics` are those of `llmsim.goodput`.
    """
    figure = new_figure(10.5, 6.2)
    above, below = figure.subplots(2, 1, height_ratios=(4.2, 1))
    _progress(above, run, metrics)
    _where_time_went(below, metrics)
    if title:
        figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    return figure


def _progress(axes: "Axes", run: Run, metrics: Mapping[str, Any]) -> None:
    times = np.array([moment for moment, _ in run.history]) / _DAY
    done = np.array([iterations for _, iterations in run.history]) / metrics["iterations"] * 100
    ideal = metrics["ideal_days"]
    axes.plot(
        [0, ideal], [0, 100], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="without failures or saves"
    )
    axes.plot(times, done, color=_PRODUCTIVE, linewidth=1.8, label="this run")
    causes = sorted({cause for _, cause in run.marks}, key=lambda cause: -sum(c == cause for _, c in run.marks))
    for index, cause in enumerate(causes[:_MOST_MARKS]):
        own = np.array([moment for moment, mark in run.marks if mark == cause]) / _DAY
        height = -4.5 - 4.2 * index
        axes.plot(
            own, np.full(len(own), height), "|", color=CATEGORY_COLOURS[(index + 1) % 8], markersize=8, clip_on=False
        )
        axes.text(times[-1] * 1.005, height, f"{cause} {len(own)}", fontsize=8, color=INK, va="center", clip_on=False)
    axes.set_ylim(-4.0 - 4.2 * max(1, min(len(causes), _MOST_MARKS)), 102)
    axes.set_xlim(0, times[-1])
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("iterations done (%)", color=INK)
    axes.set_xlabel("days", color=INK)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    tidy(axes)


def _where_time_went(axes: "Axes", metrics: Mapping[str, Any]) -> None:
    """One bar of all time; what is lost, at a scale of its own, in a second one."""
    total = metrics["elapsed_s"]
    lost = {name: max(0.0, seconds) for name, seconds in metrics["lost_s"].items()}
    whole = sum(lost.values())
    axes.barh(1, 100 * metrics["productive_s"] / total, color=_PRODUCTIVE, height=0.6)
    axes.text(1, 1, f"productive {metrics['goodput']:.1%}", color="white", va="center", fontsize=9)
    axes.barh(1, 100 * whole / total, left=100 * metrics["productive_s"] / total, color="#BBBBBB", height=0.6)
    left, handles, names = 0.0, [], []
    for name, (label, colour) in _LOST.items():
        if not whole or lost[name] / total < 5e-5:
            continue
        width = 100 * lost[name] / whole
        handles.append(axes.barh(0, width, left=left, color=colour, height=0.6))
        names.append(f"{label} {lost[name] / total:.2%}")
        left += width
    axes.set_yticks([1, 0], ["all time", f"lost: {whole / total:.1%}"])
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.4, 1.4)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    if handles:
        axes.legend(
            handles, names, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, frameon=False, fontsize=8.5
        )
    tidy(axes)
    axes.spines[["left", "bottom"]].set_visible(False)


def plot_goodput_intervals(metrics: Mapping[str, Any], title: str | None = None) -> "Figure":
    """Goodput against the interval between checkpoints, with the best by simulation, Young's and Daly's."""
    figure = new_figure(9.0, 5.0)
    axes = figure.subplots()
    rows = metrics["intervals"]
    if not rows:
        empty_note(axes, "without failures, or with saves that cost nothing, there is no interval to choose")
        return figure
    _goodput_axis(axes, [row["interval_s"] for row in rows], [row["goodput"] for row in rows], "simulated", 0)
    marks = (
        ("best_interval_s", "best by simulation", "-"),
        ("young_interval_s", "Young", (0, (1, 1.5))),
        ("daly_interval_s", "Daly", (0, (4, 3))),
    )
    for index, (key, label, dash) in enumerate(marks, 1):
        axes.axvline(
            metrics[key], color=CATEGORY_COLOURS[(index + 2) % 8], linestyle=dash, linewidth=1.6,
            label=f"{label}: {_spoken(metrics[key])}",
        )  # fmt: skip
    axes.set_xscale("log")
    _time_ticks(axes, [row["interval_s"] for row in rows])
    axes.set_xlabel("work between two checkpoints", color=INK)
    _finish(axes, title)
    return figure


def plot_goodput_sizes(rows: Iterable[Mapping[str, Any]], title: str | None = None) -> "Figure":
    """Goodput against the number of GPUs at the best interval of each: `gpus`, `goodput` and `exact` of each row."""
    figure = new_figure(9.0, 5.0)
    axes = figure.subplots()
    rows = list(rows)
    gpus = [row["gpus"] for row in rows]
    _goodput_axis(axes, gpus, [row["goodput"] for row in rows], "simulated", 0)
    axes.plot(
        gpus, [100 * row["exact"] for row in rows], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2,
        label="exponential failures that only restart (Daly)",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(gpus, [f"{count:,}" for count in gpus])
    axes.minorticks_off()
    axes.set_xlabel("GPUs", color=INK)
    _finish(axes, title)
    return figure


def plot_plan(rows: Iterable[Mapping[str, Any]], days: float | None = None, title: str | None = None) -> "Figure":
    """Time against cost, a point for each cluster: `days`, `cost_usd`, `gpus` and `topology` of each row that fits."""
    figure = new_figure(9.0, 5.4)
    axes = figure.subplots()
    drawn = [row for row in rows if row.get("days") and row.get("cost_usd")]
    if not drawn:
        empty_note(axes, "no cluster fits, or no price is known: give economics.gpu_hour_usd")
        return figure
    names = list(dict.fromkeys(row["topology"] for row in drawn))
    dearest = max(row["cost_usd"] for row in drawn)
    unit, word = next(((u, w) for u, w in ((1e6, "million $"), (1e3, "thousand $")) if dearest >= u), (1.0, "$"))
    for index, name in enumerate(names):
        own = [row for row in drawn if row["topology"] == name]
        axes.plot(
            [row["days"] for row in own], [row["cost_usd"] / unit for row in own], "o-", label=name, markersize=7,
            markeredgecolor="white", color=CATEGORY_COLOURS[index % 8], linewidth=1.6,
        )  # fmt: skip
        for row in own:
            place = (row["days"], row["cost_usd"] / unit)
            axes.annotate(f"{row['gpus']:,}", place, (5, 5), textcoords="offset points", fontsize=9, color=INK)
    if days is not None:
        axes.axvline(days, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label=f"{days:g} day{'s' * (days != 1)}")
    axes.set_xscale("log")
    values = [row["days"] for row in drawn]
    ticks = [t for t in _round_numbers() if min(values) * 0.8 <= t <= max(values) * 1.25]
    if ticks:
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.12 * dearest / unit)
    axes.set_xlabel("days, failures included (median)", color=INK)
    axes.set_ylabel(f"cost ({word})", color=INK)
    _finish(axes, title)
    return figure


def _goodput_axis(axes: "Axes", x: Sequence[float], goodput: Sequence[float], label: str, index: int) -> None:
    look = {"color": CATEGORY_COLOURS[index], "marker": "o", "markeredgecolor": "white", "markersize": 7}
    axes.plot(x, [100 * value for value in goodput], label=label, linewidth=2.0, **look)
    axes.set_ylabel("goodput (%)", color=INK)


def _time_ticks(axes: "Axes", values: Sequence[float]) -> None:
    steps = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800)
    ticks = [step for step in steps if min(values) * 0.95 <= step <= max(values) * 1.05]
    axes.set_xticks(ticks, [_spoken(tick) for tick in ticks])
    axes.minorticks_off()


def _spoken(seconds: float) -> str:
    for limit, unit, scale in ((120.0, "s", 1.0), (7200.0, "min", 60.0), (172800.0, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / _DAY:.3g} days"


def _round_numbers() -> list[float]:
    return [m * 10.0**power for power in range(-2, 5) for m in (1, 2, 3, 5, 7)]


def _finish(axes: "Axes", title: str | None) -> None:
    tidy(axes)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9)
    if title:
        axes.set_title(title, loc="left", fontsize=13, color=INK)
