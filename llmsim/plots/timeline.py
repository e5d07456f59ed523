"""The pipeline timeline: one row a stage, boxes at the times they ran, waiting hatched and labelled with its share."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from llmsim.plots.boxes import Ranks, Timeline, lay_out
from llmsim.plots.ink import (
    GUIDE,
    PHASES,
    WAITING,
    draw_arrows,
    draw_boxes,
    draw_communication,
    draw_guides,
    draw_numbers,
    draw_tail,
    draw_waiting,
    guide_step,
    task_boxes,
)
from llmsim.plots.style import COLOURS, HATCH, INK, MUTED, empty_note, new_figure, shade, tidy, time_unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 15.0  # inches
_NAMES = {
    "forward": "forward",
    "backward": "backward",
    "weight": "weight gradient",
    "recompute": "recompute (its share)",
    "optimizer": "optimizer step",
    "communication": "communication",
}


def plot_timeline(
    trace: "pd.DataFrame",
    *,
    ranks: Ranks = None,
    time_range: tuple[float, float] | None = None,
    arrows: bool = False,
    title: str | None = None,
    numbers: bool | Literal["auto"] = "auto",
    memory: "pd.DataFrame | None" = None,
) -> "Figure":
    """Picture of a trace (CONTRACT section 4): one row a stage, spaced by real time.

    `ranks`: None for one representative a stage, "all", or the ranks to show. `time_range` (s) zooms. `arrows` joins
    each forward and each backward to the next stage's. `numbers` writes micro-batch numbers: "auto" where they fit.
    `memory`: the memory table, drawn under the timeline. Raises `UserError` for a rank that is not in the trace.
    """
    timeline = lay_out(trace, ranks, time_range)
    pitch = row_pitch(len(timeline.rows))
    height = len(timeline.rows) * pitch + 1.5 + (2.6 if memory is not None else 0.0)
    figure = new_figure(_WIDTH, max(height, 2.4))
    if memory is not None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[max(0.6, height - 3.4), 2.4])
    else:
        axes = figure.subplots()
    guide = draw_timeline(axes, timeline, pitch=pitch, width=_WIDTH - 1.8, arrows=arrows, numbers=numbers)
    scale, unit = time_unit(timeline.end - timeline.start)
    if memory is not None:
        from llmsim.plots.memory import draw_memory_lines

        draw_memory_lines(below, memory, timeline.rows, scale)
        axes.tick_params(labelbottom=False)
    (below if memory is not None else axes).set_xlabel(f"time ({unit})", color=INK)
    figure.suptitle(title if title is not None else default_title(timeline), fontsize=13, color=INK, x=0.01, ha="left")
    draw_legend(axes, timeline, guide=guide)
    return figure


def row_pitch(rows: int) -> float:
    """Inches per row: generous for a few rows, still readable for 64."""
    return float(np.clip(10.0 / max(rows, 1), 0.15, 0.62))


def default_title(timeline: Timeline) -> str:
    """What is shown, in numbers."""
    stages = len({row.stage for row in timeline.rows})
    parts = [f"{stages} pipeline stage{'s' * (stages != 1)}", f"{timeline.micro_batches} micro-batches"]
    if timeline.chunks > 1:
        parts.append(f"{timeline.chunks} chunks a stage")
    return ", ".join(parts) + f": bubble {timeline.bubble:.1%} of the pipeline's span"


def draw_timeline(
    axes: "Axes",
    timeline: Timeline,
    *,
    pitch: float,
    width: float,
    arrows: bool = False,
    numbers: bool | str = "auto",
    span: tuple[float, float] | None = None,
) -> int:
    """Draw on `axes`, about `width` inches wide with rows of `pitch` inches; `span`: other limits of time (s).

    Returns every how many micro-batches one is darkened (`guide_step`), for the legend.
    """
    low, high = span if span is not None else (timeline.start, timeline.end)
    scale, _ = time_unit(high - low)
    low, high = low / scale, high / scale
    tidy(axes)
    if not timeline.rows:
        empty_note(axes, "the trace is empty")
        return 0
    axes.set_xlim(low, high)
    axes.set_ylim(len(timeline.rows) - 0.5, -0.5)
    inch = (high - low) / width
    draw_waiting(axes, timeline, scale)
    boxes = task_boxes(timeline, scale)
    draw_boxes(axes, boxes, inch)
    guide = guide_step(timeline, inch * scale) if numbers else 0
    draw_guides(axes, boxes, guide)
    draw_tail(axes, timeline, scale, inch)
    draw_communication(axes, timeline, scale, (low, high), inch)
    if numbers is True or numbers == "auto":
        draw_numbers(axes, timeline, boxes, inch, pitch, always=numbers is True)
    if arrows:
        draw_arrows(axes, timeline, scale)
    _label_rows(axes, timeline, pitch)
    return guide


def _label_rows(axes: "Axes", timeline: Timeline, pitch: float) -> None:
    """Stage names on the left, each row's bubble on the right; every n-th when rows are thin."""
    rows = timeline.rows
    step = next(n for n in (1, 2, 4, 8, 16, 32, 64, 10**9) if n * pitch * 72 >= 9.5)
    several = len({row.stage for row in rows}) < len(rows)
    ticks = range(0, len(rows), step)
    names = [f"{rows[i].stage} · rank {rows[i].rank}" if several else str(rows[i].stage) for i in ticks]
    axes.set_yticks(list(ticks), names)
    axes.set_ylabel("pipeline stage", color=INK, labelpad=8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    twin = axes.secondary_yaxis("right")
    twin.set_yticks(list(ticks), [f"{rows[i].bubble:.1%}" for i in ticks])
    twin.tick_params(length=0, labelsize=9, colors=MUTED)
    twin.spines["right"].set_visible(False)
    twin.set_ylabel("waiting (bubble)", color=MUTED, labelpad=8)


def draw_legend(axes: "Axes", *timelines: Timeline, guide: int = 0, above: float = 0.05) -> None:
    """One legend, `above` inches over `axes`: only what occurs."""
    from matplotlib.colors import to_rgb
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.patches import Patch

    kinds = {PHASES[kind] for timeline in timelines for kind in timeline.tasks["kind"].unique()}
    if any((timeline.tasks["recompute_s"] > 0).any() for timeline in timelines):
        kinds.add("recompute")
    kinds |= {what for timeline in timelines for what in timeline.tail["what"].unique()}
    if any(len(row.comm[0]) for timeline in timelines for row in timeline.rows):
        kinds.add("communication")
    handles = [Patch(facecolor=COLOURS[name], label=text) for name, text in _NAMES.items() if name in kinds]
    handles.append(Patch(facecolor=WAITING["facecolors"], edgecolor=HATCH, hatch=WAITING["hatch"], label="waiting"))
    labels = [handle.get_label() for handle in handles]
    if guide:
        dark = (tuple(GUIDE * part for part in to_rgb(COLOURS[name])) for name in ("forward", "backward"))
        handles.append(tuple(Patch(facecolor=colour) for colour in dark))
        labels.append(f"micro-batches 0, {guide}, {2 * guide}, …")
    chunks = max((timeline.chunks for timeline in timelines), default=1)
    for index in range(chunks) if chunks <= 4 else (0, chunks - 1):
        pair = (COLOURS["forward"], COLOURS["backward"]) if chunks > 1 else ()
        handles += [tuple(Patch(facecolor=shade(colour, index, chunks)) for colour in pair)] * bool(pair)
        labels += [f"chunk {index}"] * bool(pair)
    axes.legend(
        handles,
        labels,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)},
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=min(len(handles), 10),
        frameon=False,
        fontsize=9.5,
        handlelength=1.4,
        handleheight=1.1,
        columnspacing=1.4,
        borderpad=0.1,
        borderaxespad=above * 72 / 9.5,
    )
