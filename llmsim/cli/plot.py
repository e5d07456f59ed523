"""`llmsim plot`: pictures of a scenario or of a saved trace."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmsim.cli.options import DETAIL, SETTINGS, open_scenario
from llmsim.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("timeline", "breakdown", "utilization", "topology", "traffic", "memory")
_FROM_TRACE = ("timeline", "breakdown", "utilization")


@click.command()
@click.argument("source", metavar="SCENARIO|TRACE")
@click.option("--kind", type=click.Choice(KINDS), default="timeline", show_default=True)
@click.option("-o", "--output", required=True, metavar="OUT", help="OUT.png, .svg or .pdf; a timeline also as .html.")
@SETTINGS
@DETAIL
def plot(source: str, kind: str, output: str, settings: tuple[str, ...], detail: str | None) -> None:
    """Draw SCENARIO (simulated first) or a TRACE that `llmsim run --trace` saved."""
    from llmsim.files import PICTURES, TABLES, check_output, write_text

    formats = (*PICTURES, ".html") if kind == "timeline" else PICTURES
    check_output(output, formats)
    if Path(source).suffix.lower() in TABLES:
        picture = _of_trace(source, kind, output)
    else:
        picture = _of_scenario(source, kind, output, settings, detail)
    if isinstance(picture, str):
        write_text(picture, output)
    else:
        from llmsim.plots import save_figure

        save_figure(picture, output)
    click.echo(output)


def _of_trace(source: str, kind: str, output: str) -> "Figure | str":
    from llmsim.files import read_trace

    if kind not in _FROM_TRACE:
        raise UserError(f"--kind {kind} needs a scenario; a trace shows {', '.join(_FROM_TRACE)}")
    return _draw(kind, output, read_trace(source), None, Path(source).stem)


def _of_scenario(source: str, kind: str, output: str, settings: tuple[str, ...], detail: str | None) -> Any:
    scenario = open_scenario(source, settings, detail)
    if kind == "topology":
        from llmsim.plots import plot_topology

        return plot_topology(scenario.resolve().topology, scenario.cluster.nodes)

    import llmsim
    from llmsim.cli.console import SlowProgress
    from llmsim.cli.summary import caption

    with SlowProgress(scenario.name) as progress:
        result = llmsim.simulate(scenario, progress=progress)
    return _draw(kind, output, result.trace, result, caption(result.metrics, scenario.parallelism.schedule))


def _draw(kind: str, output: str, trace: Any, result: Any, title: str) -> "Figure | str":
    from llmsim import plots

    match kind:
        case "timeline" if output.lower().endswith(".html"):
            return plots.timeline_html(trace, title=title)
        case "timeline":
            return plots.plot_timeline(trace, title=title)
        case "breakdown":
            return plots.plot_breakdown(result.metrics if result else _breakdown_of(trace, title))
        case "utilization":
            return plots.plot_utilization(trace, title=title)
        case "traffic":
            return plots.plot_traffic(result.metrics, title=title)
        case _:
            stages = dict(zip(trace["rank"], trace["stage"])) if (trace["stage"] >= 0).all() else None
            return plots.plot_memory(result.memory, result.footprint.capacity, title=title, stages=stages)


def _breakdown_of(trace: Any, name: str) -> dict[str, Any]:
    from llmsim.analysis.breakdown import trace_breakdown

    return {"name": name, "time_breakdown": trace_breakdown(trace)}
