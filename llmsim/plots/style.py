"""What all pictures share: colours (Okabe and Ito's, safe for colour-blind readers), units of axes, figures, files."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmsim.files import PICTURES, check_output, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color Universal Design"; what each stands for is ours and the same in every picture.
COLOURS = {
    "forward": "#0072B2",
    "backward": "#E69F00",
    "weight": "#009E73",
    "recompute": "#CC79A7",
    "optimizer": "#3D3D3D",
    "communication": "#D55E00",
    "idle": "#FFFFFF",
}
CATEGORY_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#3D3D3D")
INK = "#222222"
MUTED = "#6B6B6B"
HATCH = "#C9C9C9"
_TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def new_figure(width: float, height: float) -> "Figure":
    """A figure (inches) that belongs to no GUI and no pyplot state, and still shows itself in a notebook."""
    from io import BytesIO

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            return buffer.getvalue()

    figure = Picture(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: str | Path, dpi: int = 160) -> Path:
    """Write `figure` as PNG, SVG or PDF, by the suffix of `path`; raises `UserError` for another suffix or folder."""
    path = Path(path)
    check_output(str(path), PICTURES)
    from matplotlib import rc_context

    # Text stays text in SVG, and equal results give equal files.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "llmsim"}):
        dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
        with written(path) as place:
            figure.savefig(place, dpi=dpi, metadata=dated)
    return path


def time_unit(span: float) -> tuple[float, str]:
    """(seconds per unit, unit) in which `span` seconds read well: 0.0123 s is 12.3 ms."""
    for scale, unit in _TIME_UNITS:
        if span >= scale:
            return scale, unit
    return (1.0, "s") if span <= 0 else _TIME_UNITS[-1]


def shade(colour: str, index: int, count: int) -> tuple[float, float, float]:
    """`colour` for chunk `index` of `count`: the first is the colour itself, later ones are lighter."""
    from matplotlib.colors import to_rgb

    rgb = np.array(to_rgb(colour))
    lighter = 0.58 * index / max(1, count - 1) if count > 1 else 0.0
    return tuple(rgb + (1.0 - rgb) * lighter)


def ink_on(rgb: tuple[float, float, float]) -> str:
    """White or near-black, whichever reads better on `rgb` (WCAG relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if luminance < 0.25 else INK


def tidy(axes: "Axes") -> None:
    """No box, quiet ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=9)


def empty_note(axes: "Axes", text: str) -> None:
    """Say why there is nothing to see."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=12)
    axes.set_axis_off()
