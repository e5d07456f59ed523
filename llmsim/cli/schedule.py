"""`llmsim schedule`: a pipeline schedule played alone, or several side by side."""

from typing import TYPE_CHECKING, Any

import click

from llmsim.cli.options import AS_JSON
from llmsim.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.standalone.pipeline import ScheduleResult


class Numbers(click.ParamType):
    """One number, or a list with commas between; `kind` reads each of them."""

    name = "numbers"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            numbers = [self.kind(text) for text in value.split(",")]
        except ValueError:
            what = "a whole number" if self.kind is int else "a number"
            self.fail(f"{value!r} is not {what}; expected such as 4, or a list such as 4,8,4", param, ctx)
        return numbers if len(numbers) > 1 else numbers[0]


WHOLE, TIMES = Numbers(int), Numbers(float)


@click.command()
@click.argument("name", required=False)
@click.option("--compare", metavar="A,B,…", help="Schedules or tables to compare on the same work, in place of NAME.")
@click.option("--stages", type=WHOLE, help="Pipeline ranks p; for a comparison also a list.")
@click.option("--micro-batches", type=WHOLE, help="Micro-batches m; for a comparison also a list.")
@click.option("--chunks", type=WHOLE, help="Model chunks per rank v, of schedules that take any number.")
@click.option("--forward", type=TIMES, default=1.0, show_default=True, help="Seconds, one number or one per stage.")
@click.option("--backward", type=TIMES, default=1.0, show_default=True, help="The same, of the input gradient.")
@click.option("--weight", type=TIMES, default=1.0, show_default=True, help="The same, of the weight gradient.")
@click.option("--comm", type=TIMES, default=0.0, show_default=True, help="Seconds from a stage to its neighbour.")
@click.option("--overlap", type=float, help="Time of a DualPipe block over the sum of its parts; 1 hides nothing.")
@click.option("--memory-limit", type=float, help="Micro-batch activations that a rank can hold.")
@click.option("--plot", metavar="OUT", help="OUT.png, .svg or .pdf; one schedule also as .html.")
@click.option("--trace", metavar="OUT", help="Every op with its times, as OUT.csv or .parquet.")
@click.option("--table", metavar="OUT", help="The order, as OUT.csv or .json, to be changed and given as NAME.")
@AS_JSON
def schedule(name: str | None, compare: str | None, **asked: Any) -> None:
    """Play the pipeline schedule NAME (or a .csv or .json table of ops) and say where it waits.

    For NAME the times are those of one virtual stage, as many as stages × chunks when listed. In a comparison they are
    those of one rank's share of the model, which is cut further where a schedule has several chunks: the work is equal.
    """
    if (name is None) == (compare is None):
        given = "both are given" if name else "neither is given"
        raise UserError(f"expected the NAME of a schedule or --compare A,B,…; {given}")
    if compare is None:
        _one(name, asked)
    else:
        _several([text.strip() for text in compare.split(",") if text.strip()], asked)


def _one(name: str, asked: dict[str, Any]) -> None:
    import llmsim
    from llmsim.cli.console import print_json
    from llmsim.files import PICTURES, TABLES, check_output

    for key in ("stages", "micro_batches", "chunks"):
        if isinstance(asked[key], list):
            raise UserError(f"--{key.replace('_', '-')}: a list goes with --compare; expected one number")
    check_output(asked["plot"], (*PICTURES, ".html"))
    check_output(asked["trace"], TABLES)
    check_output(asked["table"], (".csv", ".json"))
    keys = ("stages", "micro_batches", "chunks", "forward", "backward", "weight", "comm", "overlap", "memory_limit")
    result = llmsim.simulate_schedule(name, **{key: asked[key] for key in keys if asked[key] is not None})
    _write(result, asked)
    if asked["as_json"]:
        print_json(result.metrics)
    else:
        _print_one(result)


def _write(result: "ScheduleResult", asked: dict[str, Any]) -> None:
    if asked["trace"]:
        from llmsim.files import write_table

        write_table(result.trace, asked["trace"])
    if asked["table"]:
        from llmsim.parallel.schedules.table import write_table as write_order

        write_order(result.schedule, asked["table"])
    if asked["plot"]:
        from llmsim import plots
        from llmsim.files import write_text

        order = result.schedule
        title = f"{order.name}, {order.stages} stages, {order.micro_batches} micro-batches"
        title += f": bubble {result.bubble_fraction:.1%}"
        if asked["plot"].lower().endswith(".html"):
            write_text(plots.timeline_html(result.trace, title=title), asked["plot"])
        else:
            plots.save_figure(plots.plot_timeline(result.trace, title=title, memory=result.memory), asked["plot"])


def _print_one(result: "ScheduleResult") -> None:
    from llmsim.cli.console import print_table

    order, span = result.schedule, result.makespan_s
    bubble, over_busy = f"{result.bubble_fraction:.2%}", f"{result.bubble_over_ideal:.2%}"
    chunks = f", {order.chunks} chunks a rank" if order.chunks > 1 else ""
    click.echo(f"{order.name}: {order.stages} stages{chunks}, {order.micro_batches} micro-batches")
    click.echo(f"makespan      {span:.6g} s")
    click.echo(f"bubble        {bubble} of the makespan, {over_busy} of the busy time")
    click.echo(f"span bubble   {result.span_bubble_s:.6g} s on the worst rank, from its own first op to its last")
    if order.parameter_copies > 1:
        click.echo(f"parameters    held {order.parameter_copies} times")
    rows = [
        (rank, f"{busy:.6g}", f"{idle:.6g}", f"{idle / span:.1%}", until_w, until_b)
        for rank, (busy, idle, until_w, until_b) in enumerate(
            zip(result.busy_s, result.idle_s, result.peak_activations, result.peak_activations_until_backward)
        )
    ]
    print_table("", ("rank", "busy s", "idle s", "idle", "peak until W", "peak until B"), rows, left=0)
    unit = "(virtual stage, micro-batch) pairs" if order.virtual_stages > order.stages else "micro-batches"
    click.echo(f"Peaks count the {unit} whose activations a rank holds until their weight or input gradient is made.")


def _several(names: list[str], asked: dict[str, Any]) -> None:
    from llmsim.cli.console import print_json
    from llmsim.files import PICTURES, check_output
    from llmsim.standalone.compare_pipelines import compare_schedules

    for key in ("trace", "table", "overlap"):
        if asked[key] is not None:
            raise UserError(f"--{key} goes with one schedule; expected a NAME in place of --compare")
    for key in ("stages", "micro_batches"):
        if asked[key] is None:
            raise UserError(f"--{key.replace('_', '-')} is missing; a comparison needs stages and micro-batches")
    check_output(asked["plot"], PICTURES)
    times = {key: asked[key] for key in ("forward", "backward", "weight", "comm")}
    sizes = {key: asked[key] for key in ("stages", "micro_batches", "chunks")}
    table = compare_schedules(names, **sizes, memory_limit=asked["memory_limit"], **times)
    if asked["plot"]:
        _plot_several(table, times, asked)
    if asked["as_json"]:
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        print_json({"memory_limit": asked["memory_limit"], "schedules": rows})
    else:
        _print_several(table, asked["memory_limit"])


def _plot_several(table: "pd.DataFrame", times: dict[str, Any], asked: dict[str, Any]) -> None:
    """One size: timelines on one axis; several sizes: the bubble as curves."""
    from llmsim import plots
    from llmsim.standalone.compare_pipelines import simulate_share

    played = table[table["error"] == ""]
    if len(table[["stages", "micro_batches"]].drop_duplicates()) > 1 or isinstance(asked["chunks"], list):
        figure = plots.plot_bubble_curves(played)
    else:
        traces = {}
        for row in played.itertuples():
            size = (row.schedule, row.stages, row.micro_batches, row.chunks)
            traces[row.schedule] = simulate_share(*size, **times, memory_limit=asked["memory_limit"]).trace
        figure = plots.plot_schedule_comparison(traces)
    plots.save_figure(figure, asked["plot"])


def _print_several(table: "pd.DataFrame", limit: float | None) -> None:
    from llmsim.cli.console import print_table, warn

    warn([f"{error}" for error in dict.fromkeys(table["error"]) if error])
    several = len(table[["stages", "micro_batches"]].drop_duplicates()) > 1
    rows = []
    for row in table[table["error"] == ""].itertuples():
        size = [row.stages, row.micro_batches] if several else []
        held = f"{row.activations:g}" + (" (parameters twice)" if row.parameter_copies > 1 else "")
        verdict = "shortest" if row.best else "" if row.fits else "too large"
        figures = [f"{row.makespan_s:.6g}", f"{row.bubble_fraction:.2%}", f"{row.bubble_over_ideal:.2%}"]
        rows.append([row.schedule, *size, int(row.chunks), *figures, f"{row.span_bubble_s:.6g}", held, verdict])
    sizes = ("p", "m") if several else ()
    columns = ("schedule", *sizes, "chunks", "makespan s", "bubble", "over busy", "span bubble s", "activations", "")
    print_table("", columns, rows)
    within = f" among those that hold at most {limit:g}" if limit is not None else ""
    click.echo("activations: the most micro-batches that a rank holds at a time, all of its chunks counted together.")
    if not table["best"].any():
        click.echo(f"No schedule is within {limit:g} activations.")
    elif not several:
        winners = ", ".join(table.loc[table["best"], "schedule"])
        click.echo(f"Shortest{within}: {winners}.")
