"""The ink of a timeline: boxes, waiting, transfers, numbers and arrows, each drawn as one collection on given axes."""

import math
from typing import TYPE_CHECKING

import numpy as np

from llmsim.analysis.intervals import coverage
from llmsim.plots.boxes import Timeline
from llmsim.plots.style import COLOURS, HATCH, INK, ink_on, shade

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = {"F": "forward", "B": "backward", "BW": "backward", "W": "weight"}
WAITING = {"facecolors": "#FAFAFA", "edgecolors": HATCH, "hatch": "////"}
GUIDE = 0.3  # brightness of the darkened boxes
_LANE = (0.33, 0.47)  # the communication strip under the task boxes: rows below the centre line
# (wider than, up to, line width): inches of a box, points of the white seam around it.
_SEAMS = ((0.06, np.inf, 0.6), (0.025, 0.06, 0.3), (-np.inf, 0.025, 0.0))
_SMALLEST = 4.5  # points of a micro-batch number
_MOST_NUMBERS = 6000
_MOST_TRANSFERS = 20000


def half_height(timeline: Timeline) -> float:
    """Half the height of a task box, in rows: less when a communication strip needs room under it."""
    return 0.30 if any(len(row.comm[0]) for row in timeline.rows) else 0.42


def task_boxes(timeline: Timeline, scale: float) -> dict[str, np.ndarray]:
    """Arrays of the boxes: x0, x1, y0, y1, colour, and the number to write (-1: none)."""
    tasks = timeline.tasks
    phase = tasks["kind"].map(PHASES).to_numpy()
    chunk = np.maximum(tasks["chunk"].to_numpy(), 0)
    start, end = tasks["start_s"].to_numpy(), tasks["end_s"].to_numpy()
    recompute = tasks["recompute_s"].to_numpy()
    row, part, half = tasks["row"].to_numpy(float), tasks["half"].to_numpy(), half_height(timeline)
    top = row - np.where(part == 2, 0.0, half)
    bottom = row + np.where(part == 1, 0.0, half)
    shades = {
        (name, index): shade(COLOURS[name], index, timeline.chunks)
        for name in ("forward", "backward", "weight", "recompute")
        for index in range(timeline.chunks)
    }
    colour = np.array([shades[key] for key in zip(phase, chunk)]).reshape(-1, 3)
    again = np.flatnonzero(recompute > 0)
    again_colour = np.array([shades["recompute", chunk[index]] for index in again]).reshape(-1, 3)
    return {
        "x0": np.concatenate((start + recompute, start[again])) / scale,
        "x1": np.concatenate((end, (start + recompute)[again])) / scale,
        "y0": np.concatenate((top, top[again])),
        "y1": np.concatenate((bottom, bottom[again])),
        "colour": np.concatenate((colour, again_colour)),
        "number": np.concatenate((tasks["micro_batch"].to_numpy(), np.full(len(again), -1))),
    }


def _add(axes: "Axes", x0: np.ndarray, x1: np.ndarray, y0: np.ndarray, y1: np.ndarray, **style: object) -> None:
    """Many rectangles as one collection; the limits of the axes stay."""
    from matplotlib.collections import PolyCollection

    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    vertices = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)
    axes.add_collection(PolyCollection(vertices, **{"linewidths": 0.0, "zorder": 2, **style}), autolim=False)


def draw_boxes(axes: "Axes", boxes: dict[str, np.ndarray], inch: float) -> None:
    """White seams between boxes wide enough (inches) to afford them; hair-thin boxes keep all their ink."""
    width = (boxes["x1"] - boxes["x0"]) / inch
    for low, high, line in _SEAMS:
        mask = (width > low) & (width <= high)
        if mask.any():
            sides = (boxes[name][mask] for name in ("x0", "x1", "y0", "y1"))
            look = {"facecolors": boxes["colour"][mask], "edgecolors": "white", "linewidths": line}
            _add(axes, *sides, **look, snap=None if line else False)


def draw_waiting(axes: "Axes", timeline: Timeline, scale: float) -> None:
    """The pipeline's window hatched behind each row: what no box covers is waiting."""
    half = half_height(timeline)
    cells = [
        (low / scale, high / scale, row - half, row + half)
        for row, own in enumerate(timeline.rows)
        for low, high in own.window
    ]
    if cells:
        _add(axes, *np.array(cells).T, zorder=1, **WAITING)


def guide_step(timeline: Timeline, inch: float) -> int:
    """Every how many micro-batches one is darkened, to be followed by eye where no number fits; 0: never."""
    tasks = timeline.tasks
    wide = float((tasks["end_s"] - tasks["start_s"]).quantile(0.9)) if len(tasks) else 0.0
    if timeline.micro_batches < 16 or len(timeline.rows) < 2 or wide / inch * 72 > _SMALLEST * _number_width(timeline):
        return 0
    return 2 ** max(1, math.ceil(math.log2(timeline.micro_batches / 8)))


def draw_guides(axes: "Axes", boxes: dict[str, np.ndarray], step: int) -> None:
    if step:
        mask = (boxes["number"] >= 0) & (boxes["number"] % step == 0)
        sides = (boxes[name][mask] for name in ("x0", "x1", "y0", "y1"))
        _add(axes, *sides, facecolors=GUIDE * boxes["colour"][mask], zorder=2.5)


def draw_tail(axes: "Axes", timeline: Timeline, scale: float, inch: float) -> None:
    from matplotlib.colors import to_rgb

    tail = timeline.tail
    if len(tail):
        row, start, end = (tail[name].to_numpy(float) for name in ("row", "start_s", "end_s"))
        half = half_height(timeline)
        sides = {"x0": start / scale, "x1": end / scale, "y0": row - half, "y1": row + half}
        colour = np.array([to_rgb(COLOURS[what]) for what in tail["what"]])
        draw_boxes(axes, {**sides, "colour": colour}, inch)


def draw_communication(axes: "Axes", timeline: Timeline, scale: float, span: tuple[float, float], inch: float) -> None:
    """A strip under the boxes; where transfers are thinner than a pixel, the ink grows with their share of the time."""
    from matplotlib.colors import to_rgb

    low, high = span
    counts = [len(row.comm[0]) for row in timeline.rows]
    if not sum(counts):
        return
    start, end = (np.concatenate([row.comm[side] for row in timeline.rows]) / scale for side in (0, 1))
    if len(start) <= _MOST_TRANSFERS and np.median(end - start) > 0.01 * inch:
        row = np.repeat(np.arange(len(counts), dtype=float), counts)
        _add(axes, start, end, row + _LANE[0], row + _LANE[1], facecolors=COLOURS["communication"])
        return
    edges = np.linspace(low, high, 2401)
    limits = axes.get_xlim(), axes.get_ylim()
    for row, own in enumerate(timeline.rows):
        share = coverage(own.comm[0] / scale, own.comm[1] / scale, edges) / np.diff(edges)
        image = np.empty((1, len(share), 4))
        image[..., :3] = to_rgb(COLOURS["communication"])
        image[0, :, 3] = np.where(share > 0, np.clip(0.25 + 0.75 * share, 0.0, 1.0), 0.0)
        place = (low, high, row + _LANE[1], row + _LANE[0])
        axes.imshow(image, extent=place, aspect="auto", zorder=2, interpolation="antialiased")
    axes.set(xlim=limits[0], ylim=limits[1])


def _number_width(timeline: Timeline) -> float:
    """Width (em) of the longest micro-batch number, with a margin; DejaVu Sans digits are 0.636 em wide."""
    return 0.62 * len(str(max(0, timeline.micro_batches - 1))) + 0.25


def draw_numbers(
    axes: "Axes", timeline: Timeline, boxes: dict[str, np.ndarray], inch: float, pitch: float, always: bool
) -> None:
    height = (boxes["y1"] - boxes["y0"]) * pitch * 72  # points
    size = np.clip(0.62 * height, 0.0, 9.5)
    room = (boxes["x1"] - boxes["x0"]) / inch * 72
    size = np.minimum(size, room / _number_width(timeline))
    inside = (boxes["x0"] + boxes["x1"] > 2 * axes.get_xlim()[0]) & (boxes["x0"] + boxes["x1"] < 2 * axes.get_xlim()[1])
    fits = (boxes["number"] >= 0) & inside & ((size >= _SMALLEST) | always)
    if not always and fits.sum() > _MOST_NUMBERS:
        return
    for index in np.flatnonzero(fits):
        axes.text(
            (boxes["x0"][index] + boxes["x1"][index]) / 2,
            (boxes["y0"][index] + boxes["y1"][index]) / 2,
            str(boxes["number"][index]),
            fontsize=max(size[index], 3.0),
            color=ink_on(boxes["colour"][index]),
            ha="center",
            va="center_baseline",
            zorder=4,
            clip_on=True,
        ).set_in_layout(False)


def task_links(timeline: Timeline) -> np.ndarray:
    """(row from, end, row to, start) of each hand-over between stages, shape (n, 4), times in seconds.

    The forwards of one micro-batch run one after the other through the stages, and so do its backwards; where the
    chunks of a micro-batch number overlap in time (DualPipe's two directions) each chunk is a chain of its own.
    """
    links = []
    passes = timeline.tasks[timeline.tasks["kind"] != "W"]
    kind = passes["kind"].where(passes["kind"] == "F", "B")
    for _, chain in passes.groupby([passes["iteration"], kind, passes["micro_batch"]], sort=False):
        chain = chain.sort_values("start_s")
        serial = (chain["end_s"].to_numpy()[:-1] <= chain["start_s"].to_numpy()[1:] * (1 + 1e-9)).all()
        for part in [chain] if serial else [own for _, own in chain.groupby("chunk")]:
            row, start, end = (part[name].to_numpy() for name in ("row", "start_s", "end_s"))
            moves = row[1:] != row[:-1]
            links.append(np.column_stack((row[:-1], end[:-1], row[1:], start[1:]))[moves])
    return np.concatenate(links) if links else np.zeros((0, 4))


def draw_arrows(axes: "Axes", timeline: Timeline, scale: float) -> None:
    links = task_links(timeline)
    x, y = links[:, 1] / scale, links[:, 0]
    dx, dy = links[:, 3] / scale - x, links[:, 2] - y
    half = half_height(timeline)
    y, dy = y + np.sign(dy) * half, dy - 2 * np.sign(dy) * half  # from edge to edge
    axes.quiver(
        x,
        y,
        dx,
        dy,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.0009,
        headwidth=5,
        headlength=6,
        color=INK,
        alpha=0.75,
        zorder=3,
    )
