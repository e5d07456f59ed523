"""`llmsim goodput`: the whole job, with its failures, checkpoints and restarts."""

from typing import TYPE_CHECKING, Any

import click

from llmsim.cli.options import AS_JSON, SETTINGS, open_scenario

if TYPE_CHECKING:
    from llmsim.job import Goodput

_LOST = {
    "checkpoint": "saving checkpoints",
    "detection": "noticing failures",
    "restart": "restarting",
    "load": "loading checkpoints",
    "recomputed": "work done again",
    "degraded": "running slower than healthy",
    "waiting": "waiting for nodes",
}
_DAY = 86400.0


@click.command()
@click.argument("scenario")
@click.option("--runs", type=click.IntRange(min=1), default=200, show_default=True, help="How often to play the job.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds, equal failures.")
@click.option("--plot", metavar="OUT", help="Draw one run over time and where time went: OUT.png, .svg or .pdf.")
@click.option("--plot-interval", metavar="OUT", help="Draw goodput against the interval between checkpoints.")
@click.option("--plot-size", metavar="OUT", help="Draw goodput against the size of the cluster (weak scaling).")
@click.option("--table", metavar="OUT", help="One row a run: OUT.parquet or OUT.csv.")
@click.option("--resume", is_flag=True, help="Go on with the runs of --table that were interrupted.")
@click.option("--no-what-if", is_flag=True, help="Leave out what to improve first.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes on this machine; all cores when left out.")
@click.option("--scheduler", metavar="URL", help="tcp://host:port of a dask cluster.")
@SETTINGS
@AS_JSON
def goodput(
    scenario: str,
    runs: int,
    seed: int,
    plot: str | None,
    plot_interval: str | None,
    plot_size: str | None,
    table: str | None,
    resume: bool,
    no_what_if: bool,
    workers: int | None,
    scheduler: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Play the whole job of SCENARIO: failures, checkpoints, restarts, repairs, as its section `job` says.

    Goodput is the time spent on iterations that last, at the pace of a healthy cluster, over all time.
    """
    from llmsim.cli.console import SlowProgress, print_json
    from llmsim.files import PICTURES, TABLES, check_output
    from llmsim.job import goodput as play

    for picture in (plot, plot_interval, plot_size):
        check_output(picture, PICTURES)
    check_output(table, TABLES)
    loaded = open_scenario(scenario, settings)
    with SlowProgress(f"{runs} runs of the job") as progress:
        found = play(loaded, runs, seed, workers, scheduler, not no_what_if, table, resume, progress)
    _draw(found, plot, plot_interval, plot_size)
    if as_json:
        print_json(found.metrics)
    else:
        _print(found)


def _draw(found: "Goodput", plot: str | None, plot_interval: str | None, plot_size: str | None) -> None:
    if not (plot or plot_interval or plot_size):
        return
    from llmsim.job.sizes import goodput_by_size
    from llmsim.plots.job import plot_goodput_intervals, plot_goodput_sizes, plot_job
    from llmsim.plots.style import save_figure

    name = found.metrics["name"]
    if plot:
        save_figure(plot_job(found.example, found.metrics, f"{name}: the job over time"), plot)
    if plot_interval:
        save_figure(plot_goodput_intervals(found.metrics, f"{name}: goodput by checkpoint interval"), plot_interval)
    if plot_size:
        rows = goodput_by_size(found.job, found.scenario.resolve().gpus_per_node)
        save_figure(plot_goodput_sizes(rows, f"{name}: goodput by size of the cluster"), plot_size)


def _print(found: "Goodput") -> None:
    from llmsim.cli.console import print_table
    from llmsim.units import format_bytes, format_seconds

    m = found.metrics
    days, quantiles, kind = m["days"], m["goodput_quantiles"], m["checkpoint"]
    spare = f" and {m['spare_gpus']:,} spare" if m["spare_gpus"] else ""
    click.echo(
        f"{m['name']}: {m['iterations']:,} iterations of {format_seconds(m['iteration_time_s'])} on "
        f"{m['gpus']:,}{spare} GPUs take {days['p50']:.4g} days ({days['p10']:.4g} to {days['p90']:.4g} in 8 of 10 of "
        f"{m['runs']} runs)"
    )
    click.echo(
        f"goodput {m['goodput']:.1%} ({quantiles['p10']:.1%} to {quantiles['p90']:.1%}), effective training time "
        f"{m['effective_training_time']:.1%}, ETTR {m['ettr']:.1%}, MFU over wall time {m['mfu']:.1%}"
    )
    rows = [("productive", *_share(m["productive_s"], m["elapsed_s"]))]
    rows += [(text, *_share(m["lost_s"][key], m["elapsed_s"])) for key, text in _LOST.items()]
    print_table("where the time goes", ("", "days", "share"), [*rows, ("all", *_share(m["elapsed_s"], m["elapsed_s"]))])
    if m["failures"]["by_cause"]:
        causes = sorted(m["failures"]["by_cause"].items(), key=lambda item: -item[1])
        each = m["elapsed_s"] / m["failures"]["mean"] if m["failures"]["mean"] else 0.0
        click.echo(f"{m['failures']['mean']:,.4g} interruptions, one every {format_seconds(each)}")
        print_table(
            "",
            ("cause", "in a run"),
            [(name, f"{count:,.2f}") for name, count in causes],
        )
    else:
        click.echo("Nothing fails: job.failures names no preset and no mean time between failures.")
    if m["young_interval_s"] is not None:
        click.echo(
            f"interval between checkpoints {format_seconds(m['interval_s'])}; best by simulation "
            f"{format_seconds(m['best_interval_s'])}, by Young {format_seconds(m['young_interval_s'])}, by Daly "
            f"{format_seconds(m['daly_interval_s'])}"
        )
    click.echo(
        f"{kind['saves']:,.0f} checkpoints of {format_bytes(kind['bytes'])}, each stops training for "
        f"{format_seconds(kind['stall_s'])} ({kind['mode']}); {format_bytes(m['bytes_written'])} written"
    )
    cost = f"${m['cost_usd']:,.0f}, " if m.get("cost_usd") else ""
    click.echo(
        f"{m['gpu_hours']:,.0f} GPU hours, {cost}{m['energy_kwh'] / 1000:,.1f} MWh, {m['co2_kg'] / 1000:,.1f} t CO2"
    )
    if m["what_if"]:
        print_table(
            "what to improve first (the same failures, played again)",
            ("change", "days saved", "goodput"),
            [(e["change"], f"{e['days_saved']:.3g}", f"{e['goodput']:.1%}") for e in m["what_if"]],
        )


def _share(seconds: float, total: float) -> tuple[Any, ...]:
    return f"{abs(seconds) / _DAY:,.3f}", f"{abs(seconds) / total:.2%}"
