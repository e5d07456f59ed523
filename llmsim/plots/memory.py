"""Memory over time: categories stacked per rank against the capacity, and one line a stage under a timeline."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from llmsim.plots.boxes import Row
from llmsim.plots.style import CATEGORY_COLOURS, INK, MUTED, empty_note, new_figure, tidy, time_unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GIB = 2.0**30
_MOST_PANELS = 6
_MOST_POINTS = 3000
_ORDER = (
    "parameters",
    "gradients",
    "optimizer",
    "reserved",
    "temporary",
    "activations",
)  # steady ones at the bottom


def memory_levels(memory: "pd.DataFrame", rank: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(times, {category: bytes from each time on}) of one rank of a memory table (CONTRACT section 4).

    A row says what its category holds from `time_s` until the category's next row. A schedule played alone has counts
    of micro-batches in a column `activations` in place of bytes.
    """
    amount = _amount(memory)
    own = memory[memory["rank"] == rank]
    times = np.unique(own["time_s"].to_numpy(float))
    found = [str(name) for name in own["category"].unique()]
    names = [name for name in _ORDER if name in found] + sorted(set(found) - set(_ORDER))
    levels = {}
    for name in names:
        part = own[own["category"] == name].sort_values("time_s", kind="stable")
        place = np.searchsorted(part["time_s"].to_numpy(float), times, side="right")
        levels[name] = np.concatenate(([0.0], part[amount].to_numpy(float)))[place]
    return times, levels


def _amount(memory: "pd.DataFrame") -> str:
    return "allocated_bytes" if "allocated_bytes" in memory else "activations"


def _thin(times: np.ndarray, levels: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """At most about `_MOST_POINTS` points, keeping each bin's highest total: the peak stays exact."""
    if len(times) <= _MOST_POINTS:
        return times, levels
    total = sum(levels.values())
    cuts = np.linspace(0, len(times), _MOST_POINTS + 1).astype(int)
    keep = np.unique([low + int(np.argmax(total[low:high])) for low, high in pairwise(cuts)])
    return times[keep], {name: level[keep] for name, level in levels.items()}


def plot_memory(
    memory: "pd.DataFrame",
    capacity_bytes: float | None = None,
    *,
    title: str | None = None,
    stages: Mapping[int, int] | None = None,
) -> "Figure":
    """Allocated memory over time by category, one panel a rank, with peak and capacity.

    `memory`: `rank, time_s, allocated_bytes, category`. Of more than six ranks the highest and an even choice of the
    others are shown. `stages`: the pipeline stage of each rank, to name the panels by.
    """
    ranks = sorted(memory["rank"].unique()) if len(memory) else []
    curves = {rank: memory_levels(memory, rank) for rank in ranks}
    peaks = {rank: float(sum(curves[rank][1].values()).max()) for rank in ranks}
    shown = _choose(ranks, peaks)
    columns = 1 if len(shown) <= 1 else 2
    lines = max(1, -(-len(shown) // columns))
    figure = new_figure(7.2 * columns if columns > 1 else 11.0, 2.9 * lines + 0.9)
    if not shown:
        empty_note(figure.subplots(), "the memory table is empty")
        return figure
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    end = float(memory["time_s"].max())
    scale, unit = time_unit(end - float(memory["time_s"].min()))
    names = list(dict.fromkeys(name for rank in shown for name in curves[rank][1]))
    names = [n for n in _ORDER if n in names] + [n for n in names if n not in _ORDER]
    colour = {name: CATEGORY_COLOURS[i % len(CATEGORY_COLOURS)] for i, name in enumerate(names)}
    for rank, axes in zip(shown, panels.flat):
        times, levels = _thin(*curves[rank])
        times = np.append(times, end) / scale
        stack = [np.append(level, level[-1]) / _GIB for level in levels.values()]
        axes.stackplot(times, stack, step="post", colors=[colour[name] for name in levels], linewidth=0.0)
        if capacity_bytes is not None:
            axes.axhline(capacity_bytes / _GIB, color=INK, linewidth=1.4, linestyle=(0, (5, 2)))
        over = capacity_bytes is not None and peaks[rank] > capacity_bytes
        axes.set_title(
            f"{_named(rank, stages)}: peak {peaks[rank] / _GIB:.1f} GiB" + (", does not fit" if over else ""),
            loc="left",
            fontsize=11,
            color="#B03A00" if over else INK,
        )
        tidy(axes)
    top = max([*peaks.values(), capacity_bytes or 0.0]) / _GIB
    panels[0, 0].set_ylim(0, 1.08 * top if top > 0 else 1.0)
    panels[0, 0].set_xlim(float(memory["time_s"].min()) / scale, end / scale)
    for axes in panels[:, 0]:
        axes.set_ylabel("allocated (GiB)", color=INK)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for index, axes in enumerate(panels.flat[: len(shown)]):
        if index + columns >= len(shown):
            axes.set_xlabel(f"time ({unit})", color=INK)
            axes.tick_params(labelbottom=True)
    _legend(figure, colour, capacity_bytes)
    few = "" if len(shown) == len(ranks) else f" ({len(shown)} of {len(ranks)} ranks)"
    figure.suptitle(f"{title or 'Memory over time'}{few}", fontsize=13, color=INK, x=0.01, ha="left")
    return figure


def _named(rank: int, stages: Mapping[int, int] | None) -> str:
    return f"rank {rank}" if stages is None else f"stage {stages[rank]} (rank {rank})"


def _legend(figure: "Figure", colour: dict[str, str], capacity: float | None) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=value, label=name) for name, value in colour.items()]
    if capacity is not None:
        label = f"capacity ({capacity / _GIB:.1f} GiB)"
        handles.append(Line2D([], [], color=INK, linewidth=1.4, linestyle=(0, (5, 2)), label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=10)


def _choose(ranks: Sequence[int], peaks: dict[int, float]) -> list[int]:
    if len(ranks) <= _MOST_PANELS:
        return list(ranks)
    even = [ranks[int(i)] for i in np.linspace(0, len(ranks) - 1, _MOST_PANELS).round()]
    highest = max(ranks, key=lambda rank: peaks[rank])
    return sorted({*even[:-2], even[-1], highest}) if highest not in even else even


def _highest(times: np.ndarray, levels: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The highest level in each of 1200 bins of time: no line shows the instant between a release and the next use."""
    edges = np.linspace(low, high, 1201)
    before = np.searchsorted(times, edges, side="right") - 1
    held = np.where(before >= 0, levels[before], 0.0)
    top = held[:-1].copy()
    place = np.searchsorted(edges, times, side="right") - 1
    inside = (place >= 0) & (place < len(top))
    np.maximum.at(top, place[inside], levels[inside])
    return edges[:-1], top


def draw_memory_lines(axes: "Axes", memory: "pd.DataFrame", rows: Sequence[Row], scale: float) -> None:
    """Total of each row's rank over time (in `scale` seconds), one line a stage from dark (first) to light (last)."""
    from matplotlib import colormaps

    tidy(axes)
    counted = _amount(memory) == "activations"
    size, label = (1.0, "activations held\n(micro-batches)") if counted else (_GIB, "allocated (GiB)")
    axes.set_ylabel(label, color=INK)
    top = 0.0
    end = axes.get_xlim()[1]
    for index, row in enumerate(rows):
        if not (memory["rank"] == row.rank).any():
            continue
        times, levels = memory_levels(memory, row.rank)
        times, total = _highest(times / scale, sum(levels.values()) / size, *axes.get_xlim())
        top = max(top, float(total.max()))
        colour = colormaps["viridis"](0.92 * index / max(1, len(rows) - 1))
        stage = f"stage {row.stage}" if len(rows) <= 8 or index in (0, len(rows) - 1) else None
        axes.plot(
            np.append(times, end),
            np.append(total, total[-1]),
            drawstyle="steps-post",
            color=colour,
            linewidth=1.8 if len(rows) <= 8 else 0.9,
            label=stage,
        )
    axes.set_ylim(0, 1.1 * top if top > 0 else 1.0)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    if top > 0:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, labelcolor=MUTED)
