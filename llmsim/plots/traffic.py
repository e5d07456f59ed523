"""Which traffic crosses what: bytes by kind of link and group, and the hottest link of each kind."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.analysis.traffic import LINKS, group_name, traffic_per_gpu
from llmsim.plots.style import CATEGORY_COLOURS, INK, MUTED, empty_note, new_figure, tidy
from llmsim.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"tp": "#D55E00", "cp": "#E69F00", "ep": "#F0E442", "pp": "#CC79A7", "dp": "#AA3377"}
_BAR = 0.8  # of the place of a kind of link


def plot_traffic(metrics: Mapping[str, Any], *, title: str | None = None) -> "Figure":
    """Left: bytes per GPU and iteration on each kind of link, a bar for each group. Right: the hottest links.

    metrics: of a result (`network` and `gpus`, CONTRACT section 3). The scale of bytes is logarithmic.
    """
    groups = traffic_per_gpu(metrics)
    kinds = [kind for kind in LINKS if any(kind in crossed for crossed in groups.values())]
    figure = new_figure(13, 2.4 + 0.28 * sum(len(crossed) for crossed in groups.values()))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    if not kinds:
        empty_note(left, "no GPU sends anything to another one")
        right.set_axis_off()
        return figure
    _bytes(left, groups, kinds)
    _hottest(right, metrics["network"]["hottest"], kinds)
    figure.suptitle(title or metrics.get("name", ""), fontsize=11, color=INK)
    return figure


def _bytes(axes: "Axes", groups: dict[str, dict[str, float]], kinds: list[str]) -> None:
    spare = iter(CATEGORY_COLOURS)
    colours = {group: _COLOURS.get(group) or next(spare) for group in groups}
    smallest = min(amount for crossed in groups.values() for amount in crossed.values())
    largest = max(amount for crossed in groups.values() for amount in crossed.values())
    labelled = set()
    for place, kind in enumerate(kinds):
        here = [group for group in groups if kind in groups[group]]
        height = _BAR / len(here)
        for number, group in enumerate(here):
            y = place - _BAR / 2 + (number + 0.5) * height
            amount = groups[group][kind]
            label = None if group in labelled else group_name(group)
            labelled.add(group)
            axes.barh(y, amount, height=0.9 * height, color=colours[group], label=label)
            axes.annotate(format_bytes(amount), (amount, y), xytext=(4, 0), textcoords="offset points",
                          va="center", fontsize=8, color=INK)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(smallest / 5, largest * 20)
    axes.set_yticks(range(len(kinds)), [LINKS[kind] for kind in kinds])
    axes.invert_yaxis()
    axes.set_xlabel("bytes per GPU and iteration (logarithmic)")
    axes.figure.legend(fontsize=9, frameon=False, loc="outside lower center", ncols=5)
    tidy(axes)


def _hottest(axes: "Axes", hottest: list[dict[str, Any]], kinds: list[str]) -> None:
    shown = sorted((link for link in hottest if link["kind"] in kinds), key=lambda link: kinds.index(link["kind"]))
    used = np.array([100 * link["utilization"] for link in shown])
    axes.barh(range(len(shown)), used, height=0.35, color="#56B4E9")
    for y, (link, share) in enumerate(zip(shown, used)):
        name = f"{link['link']}   {share:.1f} %".replace("->", " → ")
        above = {"xytext": (2, 2), "textcoords": "offset points", "va": "bottom"}
        axes.annotate(name, (0, y - 0.22), fontsize=8, color=INK, **above)
    axes.set_yticks(range(len(shown)), [LINKS[link["kind"]] for link in shown])
    axes.set_ylim(len(shown) - 0.5, -0.7)
    axes.set_xlim(0, max(1.0, used.max(initial=0.0)) * 1.15)
    axes.set_xlabel("hottest link of each kind: % of what it could carry")
    axes.tick_params(axis="y", colors=MUTED)
    tidy(axes)
