"""`llmsim plan`: how many GPUs it takes."""

from typing import TYPE_CHECKING, Any

import click

from llmsim.cli.options import AS_JSON, SETTINGS, open_scenario
from llmsim.errors import UnitError, UserError
from llmsim.units import parse_quantity

if TYPE_CHECKING:
    from llmsim.job import Planned


def _tokens(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_quantity(value, "number")
    except UnitError as error:
        raise UserError(f"--tokens: {error}") from None


@click.command()
@click.argument("scenario")
@click.option("--tokens", callback=_tokens, metavar="T", help="Tokens to train on, as 15e12; those of SCENARIO.")
@click.option("--days", type=float, metavar="D", help="How long it may take.")
@click.option("--budget", type=float, metavar="USD", help="What it may cost.")
@click.option("--nodes", metavar="SIZES", help="8..2048 doubles from 8 on; or a list: 8,12,16.")
@click.option("--topology", "topologies", multiple=True, metavar="T", help="Clusters to compare; that of SCENARIO.")
@click.option(
    "--layout", type=click.Choice(["search", "scenario"]), default="search", show_default=True,
    help="The best layout of each cluster, or SCENARIO's own with more or fewer replicas.",
)  # fmt: skip
@click.option("--space", multiple=True, metavar="KEY=VALUES", help="What to try: --space 'parallelism.tp=[4, 8]'.")
@click.option("--runs", type=click.IntRange(min=1), default=40, show_default=True, help="How often to play each job.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Equal seeds, equal failures.")
@click.option("--plot", metavar="OUT", help="Draw time against cost: OUT.png, .svg or .pdf.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes on this machine; all cores when left out.")
@SETTINGS
@AS_JSON
def plan(
    scenario: str,
    tokens: float | None,
    days: float | None,
    budget: float | None,
    nodes: str | None,
    topologies: tuple[str, ...],
    layout: str,
    space: tuple[str, ...],
    runs: int,
    seed: int,
    plot: str | None,
    workers: int | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """How many GPUs it takes to train SCENARIO's model on T tokens in D days, failures included; and the inverse."""
    from llmsim.cli.console import SlowProgress, print_json, warn
    from llmsim.cli.scale import sizes_of
    from llmsim.files import PICTURES, check_output
    from llmsim.job import plan as make
    from llmsim.scenario.overrides import parse_override

    check_output(plot, PICTURES)
    loaded, counts = open_scenario(scenario, settings), sizes_of(nodes) if nodes else None
    chosen = dict(parse_override(text) for text in space)
    with SlowProgress("clusters") as progress:
        found = make(
            loaded, tokens, days, counts, budget, topologies or None, chosen, layout, runs, seed, workers, progress
        )
    if loaded.job.failures == type(loaded.job.failures)():
        warn(["job.failures names no preset and no mean time between failures: nothing fails in this plan"])
    if plot:
        from llmsim.plots.job import plot_plan
        from llmsim.plots.style import save_figure

        save_figure(plot_plan(found.rows, days, f"{loaded.name}: {found.tokens:.3g} tokens"), plot)
    if as_json:
        print_json(found.record())
    else:
        _print(found)


def _print(found: "Planned") -> None:
    from llmsim.cli.console import print_table
    from llmsim.cli.summary import counted

    head = ["topology", "nodes", "GPUs", "days", "in 9 of 10", "goodput", "cost", "MWh", "tp·pp·dp"]
    if found.days is not None:
        head.append(f"tokens in {found.days:g} days")
    print_table(f"{found.name}: {counted(found.tokens)} tokens", head, [_cells(row, found) for row in found.rows])
    for row in found.rows:
        if not row["fits"]:
            click.echo(f"{row['nodes']} nodes of {row['topology']}: {row['reason'].split('; ')[0]}")
    wanted = [f"{found.days:g} days"] if found.days is not None else []
    wanted += [f"${found.budget:,.0f}"] if found.budget is not None else []
    if wanted:
        fewest = found.fewest_gpus
        answer = f"the fewest GPUs are {fewest:,}" if fewest else "none of these clusters is enough"
        click.echo(f"Within {' and '.join(wanted)}: {answer}.")


def _cells(row: dict[str, Any], found: "Planned") -> tuple[Any, ...]:
    from llmsim.cli.summary import counted

    start = (row["topology"], f"{row['nodes']:,}", f"{row['gpus']:,}")
    if not row["fits"]:
        return (*start, *([None] * (6 + (found.days is not None))))
    layout = row["layout"]
    cost = None if row["cost_usd"] is None else f"${row['cost_usd']:,.0f}"
    cells = (
        *start, f"{row['days']:.4g}", f"{row['days_p90']:.4g}", f"{row['goodput']:.1%}", cost,
        f"{row['energy_kwh'] / 1000:,.1f}", f"{layout['tp']}·{layout['pp']}·{layout['dp']}",
    )  # fmt: skip
    return (*cells, counted(row["tokens_in_time"])) if found.days is not None else cells
