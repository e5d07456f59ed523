"""`llmsim sweep`: many scenarios, one row each."""

from typing import TYPE_CHECKING

import click

from llmsim.cli.options import AS_JSON, MOST_WORKERS
from llmsim.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("sweep_file", metavar="SWEEP.yaml")
@click.option("-o", "--output", required=True, metavar="OUT", help="OUT.parquet or OUT.csv, one row a run.")
@click.option(
    "--workers", type=click.IntRange(1, MOST_WORKERS), help="Processes on this machine; all cores when left out."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted sweep; finished runs are not run again.")
@click.option("--scheduler", metavar="tcp://…", help="Run on a dask cluster instead (pip install distributed).")
@AS_JSON
def sweep(
    sweep_file: str, output: str, workers: int | None, resume: bool, scheduler: str | None, as_json: bool
) -> None:
    """Simulate every point of SWEEP.yaml; finished runs are kept in OUT.journal until all are done."""
    from llmsim.cli.console import SlowProgress, print_json, warn
    from llmsim.studies.sweep import sweep as run_sweep
    from llmsim.studies.sweep.file import load_sweep

    loaded = load_sweep(sweep_file)
    try:
        with SlowProgress(f"{len(loaded.points)} points") as progress:
            table = run_sweep(loaded.scenario, loaded.points, workers, scheduler, output, resume, progress)
    except KeyboardInterrupt:
        warn([f"finished runs are in {output}.journal; the same command with --resume goes on"])
        raise
    if as_json:
        print_json(table.astype(object).where(table.notna(), None).to_dict("records"))
    else:
        _print(table, output)
    if table["status"].eq("invalid").all():
        raise UserError(f"{sweep_file}: none of the {len(table)} points is valid; {output} says why")


def _print(table: "pd.DataFrame", output: str) -> None:
    from llmsim.units import format_seconds

    counts = table["status"].value_counts()
    said = {"ok": "simulated", "out_of_memory": "out of memory", "invalid": "invalid", "failed": "failed"}
    parts = [f"{counts[status]} {text}" for status, text in said.items() if status in counts]
    click.echo(f"{output}: {len(table)} rows, {', '.join(parts)}")
    fits = table[table["status"] == "ok"]
    if len(fits):
        best = fits.loc[fits["iteration_time_s"].idxmin()]
        keys = table.columns[: table.columns.get_loc("status")]
        values = ", ".join(f"{key}={best[key]}" for key in keys)
        click.echo(f"shortest iteration: {format_seconds(best['iteration_time_s'])} with {values}")
    for status in ("invalid", "failed"):
        reasons = table.loc[table["status"] == status, "reason"]
        if len(reasons):
            click.echo(f"{said[status]}, for example: {reasons.iloc[0]}")
