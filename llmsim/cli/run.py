"""`llmsim run`: simulate a scenario."""

import sys
from typing import TYPE_CHECKING, Any

import click

from llmsim.cli.options import AS_JSON, DETAIL, SETTINGS, open_scenario

if TYPE_CHECKING:
    from llmsim.scenario import Scenario
    from llmsim.studies.remedies import Remedy

_MOMENT = 1500  # passes, of which some ten simulations take a second or two


@click.command()
@click.argument("scenario")
@AS_JSON
@click.option("--trace", metavar="OUT", help="Save every op: OUT.parquet or OUT.csv.")
@click.option("--plot", metavar="OUT", help="Save the pipeline's timeline: OUT.png, .svg or .pdf.")
@SETTINGS
@DETAIL
@click.option(
    "--advise", is_flag=True, help="Simulate changes that would make it fit, with --json or a large pipeline too."
)
@click.option("--require-fit", is_flag=True, help="Exit with status 1 when the model does not fit in memory.")
def run(
    scenario: str,
    as_json: bool,
    trace: str | None,
    plot: str | None,
    settings: tuple[str, ...],
    detail: str | None,
    advise: bool,
    require_fit: bool,
) -> None:
    """Simulate SCENARIO and say how long an iteration takes, where the time goes and whether it fits in memory.

    Where it does not fit, the cheapest changes that would make it fit are simulated too, if that takes no longer than
    a moment.
    """
    from llmsim.files import PICTURES, TABLES, check_output, write_table

    check_output(trace, TABLES)
    check_output(plot, PICTURES)
    loaded = open_scenario(scenario, settings, detail)

    import llmsim
    from llmsim.cli.console import SlowProgress, print_json

    with SlowProgress(loaded.name) as progress:
        result = llmsim.simulate(loaded, progress=progress)
    if trace:
        write_table(result.trace, trace)
    if plot:
        from llmsim.cli.summary import caption
        from llmsim.plots import plot_timeline, save_figure

        title = caption(result.metrics, loaded.parallelism.schedule)
        save_figure(plot_timeline(result.trace, title=title), plot)
    fits = result.metrics["memory"]["fits"]
    wanted = advise or (not as_json and _passes(result.metrics) <= _MOMENT)
    found = _remedies(loaded) if wanted and not fits else None
    if as_json:
        if advise:
            result.metrics["memory"]["changes"] = [remedy.record() for remedy in found or ()]
        print_json(result.metrics)
    else:
        from llmsim.cli.summary import print_summary

        print_summary(loaded, result.metrics, found)
    if require_fit and not fits:
        sys.exit(1)


def _passes(metrics: dict[str, Any]) -> int:
    """Passes that a simulation plays in one direction: what each change that is tried costs again."""
    layout = metrics["layout"]
    return metrics["simulation"]["classes"] * layout["micro_batches"] * layout["vpp"]


def _remedies(scenario: "Scenario") -> "list[Remedy]":
    from llmsim.cli.console import SlowProgress
    from llmsim.studies.remedies import remedies

    with SlowProgress("what would make it fit") as progress:
        return remedies(scenario, progress=progress)
