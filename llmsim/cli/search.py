"""`llmsim search`: the best parallel layouts."""

import sys
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from llmsim.cli.layout_columns import columns
from llmsim.cli.options import AS_JSON, SETTINGS, open_scenario

if TYPE_CHECKING:
    from llmsim.scenario import Scenario
    from llmsim.studies.search import Found, Layout


@click.command()
@click.argument("scenario")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many layouts to rank.")
@click.option(
    "--objective", type=click.Choice(["time", "cost", "memory"]), default="time", show_default=True,
    help="Time of an iteration, GPUs × time, or memory of the fullest GPU.",
)  # fmt: skip
@click.option("--space", multiple=True, metavar="KEY=VALUES", help="What to try: --space 'parallelism.tp=[4, 8]'.")
@click.option("--plot", metavar="OUT", help="Draw time against memory: OUT.png, .svg or .pdf.")
@click.option("--table", metavar="OUT", help="Every layout with its bounds and why it lost: OUT.parquet or OUT.csv.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes on this machine; all cores when left out.")
@SETTINGS
@AS_JSON
def search(
    scenario: str,
    top: int,
    objective: str,
    space: tuple[str, ...],
    plot: str | None,
    table: str | None,
    workers: int | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Rank the layouts of SCENARIO's model on its cluster with its global batch. Ctrl-C ends with the best so far."""
    from llmsim.cli.console import SlowProgress, print_json, warn
    from llmsim.files import PICTURES, TABLES, check_output, write_table
    from llmsim.scenario.overrides import parse_override
    from llmsim.studies.search import search as find

    check_output(plot, PICTURES)
    check_output(table, TABLES)
    loaded = open_scenario(scenario, settings)
    with SlowProgress(f"layouts of {loaded.name}") as progress:
        found = find(loaded, dict(parse_override(text) for text in space), objective, top, workers, progress)
    warn([*([] if found.complete else ["interrupted: this is the best so far"]), *found.warnings])
    if plot and found.front:
        from llmsim.plots.layouts import plot_layouts
        from llmsim.plots.style import save_figure

        save_figure(plot_layouts(found, f"{loaded.name}: time against memory"), plot)
    if table:
        write_table(found.table, table)
    if as_json:
        print_json(_document(found))
    else:
        _print(found, loaded, " ".join(["llmsim run", scenario, *(f"--set {quote(each)}" for each in settings)]))
    if not found.complete:
        sys.exit(130)


def _document(found: "Found") -> dict[str, Any]:
    def record(layout: "Layout") -> dict[str, Any]:
        return {
            "settings": layout.point,
            "set": layout.set,
            "iteration_time_s": layout.seconds,
            "tokens_per_s": layout.row["tokens_per_s"],
            "mfu": layout.row["mfu"],
            "peak_gib": layout.peak_gib,
            "tight": layout.tight,
            "least_s": layout.bound.seconds,
            "least_gib": layout.bound.bytes / 2**30,
            "why": found.why(layout),
        }

    return {
        "objective": found.objective,
        "complete": found.complete,
        "warnings": found.warnings,
        "counts": found.counts,
        "given": found.given and {
            "iteration_time_s": found.given["iteration_time_s"],
            "peak_gib": found.given["memory.peak_gib"],
            "fits": found.given["memory.fits"],
        },
        "layouts": [{"rank": rank, **record(layout)} for rank, layout in enumerate(found.best, 1)],
        "pareto": [record(layout) for layout in found.front],
    }  # fmt: skip


def _print(found: "Found", scenario: "Scenario", command: str) -> None:
    """command: what runs the scenario as it was given."""
    from llmsim.cli.console import print_table
    from llmsim.units import format_seconds

    counts = found.counts
    click.echo(
        f"{scenario.name}: {counts['valid']:,} valid layouts; {counts['too_large']:,} cannot fit and "
        f"{counts['too_slow']:,} cannot be better, by their bounds; {counts['simulated']:,} simulated"
    )
    if not found.best and not found.complete:
        click.echo("None was simulated before the search was interrupted.")
        return
    if not found.best:
        click.echo("None of them fits: it takes more GPUs, GPUs with more memory, or offloading.")
        return
    layouts = [*found.best, *found.front]
    differing, same = columns([layout.point for layout in layouts])
    if same:
        click.echo(f"all of these: {', '.join(f'{name} {cell}' for name, cell in same.items())}")
    figures = [(format_seconds(each.seconds), f"{each.row['mfu']:.1%}", f"{each.peak_gib:.1f}") for each in layouts]
    rows = [[*cells, *own] for *cells, own in zip(*differing.values(), figures)]
    head = [*differing, "iteration", "MFU", "GiB"]
    ranked = [[rank, *row, found.why(each)] for rank, (row, each) in enumerate(zip(rows, found.best), 1)]
    print_table("the best", ["", *head, "why not"], ranked)
    print_table("time against memory: none is both faster and smaller", head, rows[len(found.best) :])
    if found.given:
        best, given = found.best[0].seconds, found.given
        fits = "" if given["memory.fits"] else ", and it does not fit"
        click.echo(
            f"The scenario's own layout takes {format_seconds(given['iteration_time_s'])}{fits}; the best takes "
            f"{best / given['iteration_time_s'] - 1:+.1%}."
        )
    options = " ".join(f"--set {quote(each)}" for each in found.best[0].set)
    click.echo(f"To run the best: {command} {options}")
