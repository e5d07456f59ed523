"""Time against memory of the layouts that a search simulated, with their Pareto front."""

from typing import TYPE_CHECKING

from llmsim.plots.style import CATEGORY_COLOURS, INK, MUTED, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from llmsim.studies.search import Found

_NAMED = 6  # points of the front that are labelled


def plot_layouts(found: "Found", title: str | None = None) -> "Figure":
    """Every simulated layout that fits as a dot, the front as a line with its layouts' names."""
    figure = new_figure(9.0, 5.6)
    axes = figure.subplots()
    fitting = [layout for layout in found.simulated if layout.fits]
    axes.scatter(
        [each.peak_gib for each in fitting], [each.seconds for each in fitting], s=22, color=MUTED, alpha=0.45,
        linewidths=0, label="simulated",
    )  # fmt: skip
    front = found.front
    look = {"color": CATEGORY_COLOURS[0], "linewidth": 2.0, "marker": "o", "markersize": 7, "markeredgecolor": "white"}
    places = [each.peak_gib for each in front], [each.seconds for each in front]
    axes.plot(*places, drawstyle="steps-pre", label="best for its memory", **look)
    if found.given and found.given["status"] == "ok":
        place = found.given["memory.peak_gib"], found.given["iteration_time_s"]
        axes.plot(*place, "D", color=CATEGORY_COLOURS[5], markersize=8, label="the scenario's own layout")
    step = max(1, -(-len(front) // _NAMED))
    for layout in front[::step]:
        axes.annotate(
            short_name(layout.point), (layout.peak_gib, layout.seconds), (6, 8), textcoords="offset points",
            fontsize=8.5, color=INK,
        )  # fmt: skip
    axes.set_xlabel("memory of the fullest GPU (GiB)", color=INK)
    axes.set_ylabel("time of an iteration (s)", color=INK)
    tidy(axes)
    axes.margins(x=0.12, y=0.12)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=10)
    axes.set_title(title or "Parallel layouts: time against memory", loc="left", fontsize=13, color=INK)
    return figure


def short_name(point: dict) -> str:
    """`tp8 pp8 v3 mb1 selective`, as people write layouts."""
    names = {"tp": "tp", "pp": "pp", "vpp": "v", "cp": "cp", "ep": "ep", "zero": "z"}
    parts = [
        f"{short}{point[f'parallelism.{key}']}"
        for key, short in names.items()
        if point.get(f"parallelism.{key}", 1 if key != "zero" else 0) > (key != "zero")
    ]
    parts.append(f"mb{point.get('training.micro_batch', 1)}")
    return " ".join(parts)
