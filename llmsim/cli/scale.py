"""`llmsim scale`: strong and weak scaling."""

import re

import click

from llmsim.cli.options import AS_JSON, SETTINGS, open_scenario
from llmsim.errors import UserError


@click.command()
@click.argument("scenario")
@click.option("--nodes", required=True, metavar="SIZES", help="8..2048 doubles from 8 on; or a list: 8,12,16.")
@click.option("--mode", type=click.Choice(["strong", "weak", "both"]), default="both", show_default=True)
@click.option("--plot", metavar="OUT", help="Draw throughput against ideal: OUT.png, .svg or .pdf.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes on this machine; all cores when left out.")
@SETTINGS
@AS_JSON
def scale(
    scenario: str,
    nodes: str,
    mode: str,
    plot: str | None,
    workers: int | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Simulate SCENARIO on ever more nodes: strong scaling keeps the global batch, weak scaling grows it along."""
    import pandas as pd

    from llmsim.cli.console import SlowProgress, print_json, print_table
    from llmsim.files import PICTURES, check_output
    from llmsim.studies.sweep.scale import MODES, verdict
    from llmsim.studies.sweep.scale import scale as run_scale
    from llmsim.units import format_seconds

    check_output(plot, PICTURES)
    loaded, sizes = open_scenario(scenario, settings), sizes_of(nodes)
    tables = {}
    for each in MODES if mode == "both" else (mode,):
        with SlowProgress(f"{each} scaling") as progress:
            tables[each] = run_scale(loaded, sizes, each, workers, progress)
    whole = pd.concat([table.assign(scaling=each) for each, table in tables.items()], ignore_index=True)
    ran = whole[whole["efficiency"].notna()] if "efficiency" in whole else whole[:0]
    if plot:
        from llmsim.plots.curves import plot_scaling
        from llmsim.plots.style import save_figure

        if not len(ran):
            raise UserError(f"--plot: nothing to draw; {whole['reason'].iloc[0]}")
        save_figure(plot_scaling(ran, x="gpus", series="scaling", title=f"{loaded.name}: scaling"), plot)
    if as_json:
        records = whole.astype(object).where(whole.notna(), None).to_dict("records")
        print_json({"name": loaded.name, "runs": records, "verdict": {k: verdict(t) for k, t in tables.items()}})
        return
    for each, table in tables.items():
        rows = [
            (row["cluster.nodes"], "–", "–", "–", "–", row["reason"].split(";")[0]) if pd.isna(row["efficiency"]) else
            (row["cluster.nodes"], format_seconds(row["iteration_time_s"]), f"{row['tokens_per_s']:,.0f}",
             f"{row['efficiency']:.1%}", f"{row['mfu']:.1%}", row["reason"] or row["loss"])
            for _, row in table.iterrows()
        ]  # fmt: skip
        print_table(f"{each} scaling", ("nodes", "iteration", "tokens/s", "of ideal", "MFU", "where it goes"), rows)
        click.echo(verdict(table))


def sizes_of(text: str) -> list[int]:
    """`8..2048` as 8, 16, … 2048; `8,12` as it stands."""
    if match := re.fullmatch(r"\s*(\d+)\s*\.\.\s*(\d+)\s*", text):
        first, last = int(match[1]), int(match[2])
        if 0 < first <= last:
            return [first * 2**power for power in range((last // first).bit_length())]
    elif re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*", text):
        return [int(part) for part in text.split(",")]
    raise UserError(f"--nodes {text}: expected two sizes such as 8..2048, or a list such as 8,12,16")
