"""Where an iteration's time goes: `time_breakdown` of the metrics (CONTRACT section 3) as stacked bars."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmsim.errors import UserError
from llmsim.plots.style import HATCH, INK, MUTED, ink_on, new_figure, tidy, time_unit
from llmsim.units import format_seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PARTS = {  # label and colour; Okabe and Ito's, and Tol's purple
    "compute": ("compute", "#0072B2"),
    "exposed_tp": ("tensor-parallel comm.", "#D55E00"),
    "exposed_cp": ("context-parallel comm.", "#E69F00"),
    "exposed_ep": ("expert-parallel comm.", "#F0E442"),
    "exposed_pp": ("pipeline comm.", "#CC79A7"),
    "exposed_dp": ("data-parallel comm.", "#AA3377"),
    "bubble": ("pipeline bubble", "#FAFAFA"),
    "optimizer": ("optimizer step", "#3D3D3D"),
    "offload": ("offload", "#56B4E9"),
    "data": ("data loading", "#009E73"),
    "other": ("other", "#BDBDBD"),
}


def plot_breakdown(
    metrics: Mapping | Sequence[Mapping], *, relative: bool = False, title: str | None = None
) -> "Figure":
    """Stacked bars of seconds per iteration, or of percent when `relative`.

    `metrics`: the metrics of one result, a list of them (bars are named by their `name`), or {label: metrics}.
    Communication counts where nothing hides it. Raises `UserError` when there is no `time_breakdown`.
    """
    bars = _bars(metrics)
    known = [part for part in _PARTS if any(bar.get(part, 0.0) > 0 for _, bar in bars)]
    known += sorted({part for _, bar in bars for part in bar if part not in _PARTS and bar[part] > 0})
    totals = np.array([sum(bar.values()) for _, bar in bars])
    scale, unit = (0.01, "%") if relative else time_unit(totals.max(initial=0.0))
    figure = new_figure(12.5, 1.7 + 0.62 * len(bars) + 0.25 * -(-len(known) // (2 if len(bars) == 1 else 4)))
    axes = figure.subplots()
    left = np.zeros(len(bars))
    reach = (1.0 if relative else totals.max(initial=0.0)) / scale
    for part in known:
        label, colour = _PARTS.get(part, (part, "#BDBDBD"))
        seconds = np.array([bar.get(part, 0.0) for _, bar in bars])
        share = seconds / np.where(totals > 0, totals, 1.0)
        width = (share if relative else seconds) / scale
        if len(bars) == 1:
            label = f"{label}: {format_seconds(seconds[0])} ({share[0]:.1%})"
        look = (
            {"hatch": "////", "edgecolor": HATCH, "linewidth": 0.0}
            if part == "bubble"
            else {"edgecolor": "white", "linewidth": 0.7}
        )
        axes.barh(range(len(bars)), width, left=left, height=0.62, color=colour, label=label, **look)
        for row in np.flatnonzero(width > 0.055 * reach):
            _label(axes, left[row] + width[row] / 2, row, f"{share[row]:.0%}", colour)
        left += width
    for row, total in enumerate(totals):
        axes.text(
            left[row] + 0.008 * reach,
            row,
            format_seconds(total),
            va="center",
            ha="left",
            color=INK,
            fontsize=10,
        )
    tidy(axes)
    axes.spines["left"].set_visible(False)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.tick_params(axis="y", length=0, labelsize=10)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1.09 * reach if reach > 0 else 1.0)
    axes.set_xlabel("share of the iteration (%)" if relative else f"time per iteration ({unit}), mean over ranks")
    columns = 2 if len(bars) == 1 else min(4, len(known))
    figure.legend(loc="outside lower left", ncols=max(1, columns), frameon=False, fontsize=10, columnspacing=2.0)
    title = title if title is not None else "Where the time of one iteration goes"
    figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    return figure


def _bars(metrics: Mapping | Sequence[Mapping]) -> list[tuple[str, dict[str, float]]]:
    if isinstance(metrics, Mapping) and "time_breakdown" in metrics:
        metrics = [metrics]
    if isinstance(metrics, Mapping):
        named = list(metrics.items())
    else:
        named = [(str(own.get("name", f"run {index + 1}")), own) for index, own in enumerate(metrics)]
    if not named:
        raise UserError("no metrics to plot; give the metrics of at least one result")
    for name, own in named:
        if not isinstance(own, Mapping) or not own.get("time_breakdown"):
            raise UserError(f"the metrics of {name!r} have no time_breakdown; give result.metrics")
    return [(name, {part: float(value) for part, value in own["time_breakdown"].items()}) for name, own in named]


def _label(axes: object, x: float, y: float, text: str, colour: str) -> None:
    from matplotlib.colors import to_rgb

    background = {"facecolor": "white", "edgecolor": "none", "pad": 1.0} if colour == "#FAFAFA" else None
    ink = MUTED if background else ink_on(to_rgb(colour))
    axes.text(x, y, text, ha="center", va="center", fontsize=10, color=ink, bbox=background)
