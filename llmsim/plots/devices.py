"""Boxes and lines of topology pictures: one look for every kind of device and link."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmsim.plots.style import INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# fill, text: Okabe & Ito's colours, each kind with a name on it as well, so that colour is never needed alone
LOOK = {
    "gpu": ("#0072B2", "white"),
    "nvswitch": ("#009E73", "white"),
    "pcie": ("#BDBDBD", INK),
    "cpu": ("#CC79A7", INK),
    "nic": ("#E69F00", INK),
    "nodes": ("#0072B2", "white"),
    "leaf": ("#56B4E9", INK),
    "spine": ("#D55E00", "white"),
    "core": ("#3D3D3D", "white"),
    "storage": ("#F0E442", INK),
}
LINE = {
    "nvlink": "#009E73",
    "pcie": "#8C8C8C",
    "slot": "#8C8C8C",
    "c2c": "#CC79A7",
    "socket": "#CC79A7",
    "nic": "#E69F00",
    "spine": "#D55E00",
    "core": "#3D3D3D",
    "router": "#D55E00",
    "global": "#3D3D3D",
}


def shown(count: int, most: int) -> list[int | None]:
    """Which of `count` devices are drawn: all, or the first ones, a gap (None) and the last two."""
    if count <= most:
        return list(range(count))
    return [*range(most - 3), None, count - 2, count - 1]


def box(axes: "Axes", x: float, y: float, label: str, kind: str, width: float, height: float, size: float = 8) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill, ink = LOOK.get(kind, ("#EEEEEE", INK))
    corner = (x - width / 2, y - height / 2)
    rounding = "round,pad=0,rounding_size=0.06"
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=rounding, facecolor=fill, edgecolor="white", zorder=3)
    )
    axes.text(x, y, label, color=ink, fontsize=size, ha="center", va="center", zorder=4, linespacing=1.15)


def gap(axes: "Axes", x: float, y: float, skipped: int) -> None:
    """The place of devices that are not drawn."""
    white = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    axes.text(x, y, f"{skipped:,}\nmore", color=MUTED, fontsize=8, ha="center", va="center", zorder=4, bbox=white)


def lines(axes: "Axes", segments: Sequence, kind: str, width: float = 1.2, alpha: float = 0.9) -> None:
    from matplotlib.collections import LineCollection

    if segments:
        axes.add_collection(
            LineCollection(segments, colors=LINE.get(kind, MUTED), linewidths=width, alpha=alpha, zorder=1)
        )


def note(axes: "Axes", x: float, y: float, text: str, align: str = "left", bold: bool = False) -> None:
    weight = "bold" if bold else "normal"
    axes.text(x, y, text, color=INK, fontsize=8.5, ha=align, va="center", fontweight=weight, linespacing=1.25)


def bare(axes: "Axes", title: str, left: float, right: float, low: float, high: float) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold")
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    axes.axis("off")
