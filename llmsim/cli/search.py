"""`llmsim search`: the best parallel layouts."""

import sys
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from llmsim.cli.options import AS_JSON, SETTINGS, open_scenario

if TYPE_CHECKING:
    from llmsim.scenario import Scenario
    from llmsim.searching import Found, Layout

_COLUMNS = {
    "tp": "parallelism.tp",
    "pp": "parallelism.pp",
    "vpp": "parallelism.vpp",
    "cp": "parallelism.cp",
    "ep": "parallelism.ep",
    "mb": "training.micro_batch",
    "schedule": "parallelism.schedule",
    "zero": "parallelism.zero",
    "seq. par.": "parallelism.sequence_parallel",
    "recompute": "training.recompute",
    "overlap": "training.overlap",
}


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
    from llmsim.scenario.load import parse_override
    from llmsim.searching import search as find

    check_output(plot, PICTURES)
    check_output(table, TABLES)
    loaded = open_scenario(scenario, settings)
    with SlowProgress(f"layouts of {loaded.name}") as progress:
        found = find(loaded, dict(parse_override(text) for text in space), objective, top, workers, progress)
    if not found.complete:
        warn(["interrupted: this is the best so far"])
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
            "iteration_time_s": layout.seconds,
            "tokens_per_s": layout.row["tokens_per_s"],
            "mfu": layout.row["mfu"],
            "peak_gib": layout.peak_gib,
            "least_s": layout.bound.seconds,
            "least_gib": layout.bound.bytes / 2**30,
            "why": found.why(layout),
        }

    return {
        "objective": found.objective,
        "complete": found.complete,
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
    shown = _shown(found.best)
    head = ["", *shown, "iteration", "MFU", "GiB", "why not"]
    rows = [[rank, *_row(found, layout, shown)] for rank, layout in enumerate(found.best, 1)]
    print_table("the best", head, rows)
    print_table("time against memory: none is both faster and smaller", head[1:-1],
                [_row(found, layout, shown)[:-1] for layout in found.front])  # fmt: skip
    if found.given:
        best, given = found.best[0].seconds, found.given
        fits = "" if given["memory.fits"] else ", and it does not fit"
        click.echo(
            f"The scenario's own layout takes {format_seconds(given['iteration_time_s'])}{fits}; the best takes "
            f"{best / given['iteration_time_s'] - 1:+.1%}."
        )
    changed = {key: value for key, value in found.best[0].point.items() if value != _value(scenario, key)}
    if scenario.parallelism.dp is not None:
        changed["parallelism.dp"] = None
    options = " ".join(f"--set {quote(f'{key}={_text(value)}')}" for key, value in changed.items())
    click.echo(f"To run the best: {command} {options}")


def _value(scenario: "Scenario", key: str) -> object:
    """What the scenario itself has there, as a point of a search says it."""
    value: object = scenario
    for part in key.split("."):
        value = getattr(value, part, None)
    if key == "training.recompute" and value == type(value)(mode=value.mode):
        return value.mode
    return value.model_dump() if hasattr(value, "model_dump") else value


def _shown(best: "list[Layout]") -> list[str]:
    """Columns that say something: those that differ, or are not at their plainest value."""
    plain = (None, 1, 0, False, "1f1b")
    return [
        name for name, key in _COLUMNS.items()
        if len({str(layout.point.get(key)) for layout in best}) > 1
        or (best[0].point.get(key) not in plain and name != "overlap")
    ]  # fmt: skip


def _row(found: "Found", layout: "Layout", shown: list[str]) -> list[str]:
    from llmsim.units import format_seconds

    values = [_cell(layout.point.get(_COLUMNS[name])) for name in shown]
    figures = [format_seconds(layout.seconds), f"{layout.row['mfu']:.1%}", f"{layout.peak_gib:.1f}"]
    return [*values, *figures, found.why(layout)]


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return "on" if value.get("grad_reduce") else "off"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
