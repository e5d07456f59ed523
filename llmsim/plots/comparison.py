"""Several schedules on one time axis: who ends first, and where each one waits."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmsim.errors import UserError
from llmsim.plots.boxes import lay_out
from llmsim.plots.style import INK, new_figure, time_unit
from llmsim.plots.timeline import draw_legend, draw_timeline

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_WIDTH = 15.0  # inches
_TALLEST = 18.0  # inches, of all rows together


def plot_schedule_comparison(
    traces: "Mapping[str, pd.DataFrame]", *, arrows: bool = False, title: str | None = None
) -> "Figure":
    """One timeline under the other, one per name, all on the same time axis, with makespan and bubble of each.

    Raises `UserError` when there is nothing to compare.
    """
    if not traces:
        raise UserError("no schedules to compare; give a mapping of names to traces")
    timelines = {name: lay_out(trace) for name, trace in traces.items()}
    span = min(t.start for t in timelines.values()), max(t.end for t in timelines.values())
    scale, unit = time_unit(span[1] - span[0])
    rows = sum(len(timeline.rows) for timeline in timelines.values())
    pitch = min(0.42, max(_TALLEST / rows, 0.06))  # a page that is still seen as a whole
    height = rows * pitch + 0.5 * len(timelines) + 1.3
    figure = new_figure(_WIDTH, height)
    panels = figure.subplots(
        len(timelines),
        1,
        sharex=True,
        squeeze=False,
        height_ratios=[len(timeline.rows) * pitch + 0.1 for timeline in timelines.values()],
    )[:, 0]
    best = min(t.end - t.start for t in timelines.values())
    guides = []
    for axes, (name, timeline) in zip(panels, timelines.items()):
        guides.append(draw_timeline(axes, timeline, pitch=pitch, width=_WIDTH - 1.8, arrows=arrows, span=span))
        seconds = timeline.end - timeline.start
        slower = f" ({seconds / best - 1:+.1%})" if seconds > best * (1 + 1e-9) else " (shortest)"
        note = f"{seconds / scale:.4g} {unit}{slower if len(timelines) > 1 else ''}, bubble {timeline.bubble:.1%}"
        axes.axvline(timeline.end / scale, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=5)
        label = axes.set_title(name, loc="left", fontsize=11, fontweight="bold", color=INK, pad=5)
        axes.annotate(
            note,
            (1, 0),
            xycoords=label,
            xytext=(10, 0),
            textcoords="offset points",
            va="bottom",
            color=INK,
            fontsize=11,
        )
        axes.tick_params(axis="x", labelbottom=axes is panels[-1])
        axes.set_ylabel("stage")
    panels[-1].set_xlabel(f"time ({unit})", color=INK)
    title = title if title is not None else "Pipeline schedules on one time axis"
    figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    draw_legend(panels[0], *timelines.values(), guide=max(guides), above=0.34)
    return figure
