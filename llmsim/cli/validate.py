"""`llmsim validate`: the simulator against published measurements."""

from typing import TYPE_CHECKING, Any

import click

from llmsim.cli.options import MOST_WORKERS

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.option(
    "--set", "name", metavar="NAME", help="training, memory, kernels, collectives, a source, a framework or a GPU."
)
@click.option("--table", metavar="FILE.csv", help="Compare with your own table of measured runs instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--plot", metavar="OUT", help="Save measured against simulated: OUT.png, .svg or .pdf.")
@click.option("--row", "row_id", metavar="ID", help="Print the scenario of one published run and stop.")
@click.option("--cross", is_flag=True, help="Also predict each source with constants fitted to the others.")
@click.option("--report", metavar="OUT.md", help="Write the accuracy page and its picture.")
@click.option("--job", "whole_job", is_flag=True, help="Whole jobs instead: closed forms, and published goodput.")
@click.option(
    "--worst",
    type=click.IntRange(0, 10_000),
    default=10,
    show_default=True,
    metavar="N",
    help="How many of the worst runs to list.",
)
@click.option(
    "--workers", type=click.IntRange(1, MOST_WORKERS), default=2, show_default=True, metavar="N", help="Processes."
)
def validate(
    name: str | None,
    table: str | None,
    as_json: bool,
    plot: str | None,
    row_id: str | None,
    cross: bool,
    report: str | None,
    whole_job: bool,
    worst: int,
    workers: int,
) -> None:
    """Simulate published training runs and compare iteration times; kernels and collectives likewise."""
    if row_id:
        from llmsim.evidence.validation.rows import scenario_text

        click.echo(scenario_text(row_id), nl=False)
        return
    if whole_job:
        _whole_job(as_json)
        return
    if plot:
        from llmsim.files import PICTURES, check_output

        check_output(plot, PICTURES)
    if report:
        from llmsim.files import check_output

        check_output(report, (".md",))
    document: dict[str, Any] = {}
    rows = _table(table, name) if table else None
    if rows is None and name in (None, "kernels"):
        from llmsim.evidence.validation.groups import kernel_errors

        document["kernels"] = kernel_errors()
    if rows is None and name in (None, "collectives"):
        from llmsim.evidence.validation.groups import collective_errors

        document["collectives"] = collective_errors()
    if rows is None and (name == "collectives" or (name is None and cross)):
        from llmsim.evidence.validation.groups import collective_transfer

        document["collectives_left_out"] = collective_transfer(workers)
    frame = None
    if name not in ("kernels", "collectives"):
        frame = _training(name, workers, rows)
        document |= _documents(frame, name)
    if cross:
        from llmsim.evidence.validation.cross import cross_validation

        document["cross_validation"] = cross_validation(frame)
    if frame is not None and plot:
        from llmsim.plots.style import save_figure
        from llmsim.plots.validation import plot_validation

        save_figure(plot_validation(frame), plot)
    if report and frame is not None:
        from llmsim.evidence.validation.report import write_report

        write_report(report, frame)
    if as_json:
        from llmsim.cli.console import print_json

        print_json(document)
    else:
        _print(document, frame, worst)


def _whole_job(as_json: bool) -> None:
    """Rows of closed forms and published jobs."""
    from dataclasses import asdict

    from llmsim.cli.console import print_json, print_table
    from llmsim.evidence.validation.job import job_rows

    rows = job_rows()
    if as_json:
        print_json({"job": [asdict(row) for row in rows]})
        return
    words = {True: "yes", False: "no", None: "too little known"}
    print_table(
        "whole jobs: published and simulated",
        ("row", "what", "inputs", "published", "simulated", "holds"),
        [(row.name, row.what, row.inputs, row.published, row.simulated, words[row.holds]) for row in rows],
        left=3,
    )


def _table(path: str, name: str | None) -> list[dict[str, str]]:
    from llmsim.errors import UserError
    from llmsim.evidence.validation.table import read_table

    if name:
        raise UserError(f"--set {name} chooses among the shipped runs; leave it out with --table")
    rows, skipped = read_table(path)
    if not rows:
        raise UserError(f"{path}: no line of this table has a time and can be simulated")
    if skipped:
        click.echo(f"{path}: {skipped} lines without a time, or marked as not to be simulated, are left out", err=True)
    return rows


def _training(name: str | None, workers: int, rows: list[dict[str, str]] | None = None) -> "pd.DataFrame":
    from llmsim.cli.console import SlowProgress
    from llmsim.evidence.validation.memory import memory_rows
    from llmsim.evidence.validation.run import validate as run

    with SlowProgress("published runs") as progress:
        if rows is not None:
            return run(None, workers, progress, rows=rows)
        if name == "memory":
            return run(None, workers, progress, rows=memory_rows())
        return run(None if name in (None, "training") else [name], workers, progress)


def _documents(frame: "pd.DataFrame", name: str | None) -> dict[str, Any]:
    """Times unless only memory was asked for, and memory where there are measurements of it."""
    from llmsim.evidence.validation.memory import memory_summary

    memory = memory_summary(frame)
    if name == "memory":
        return {"memory": memory, "memory_rows": frame.astype(object).where(frame.notna(), None).to_dict("records")}
    return {"training": _records(frame)} | ({"memory": memory} if memory else {})


def _records(frame: "pd.DataFrame") -> dict[str, Any]:
    from llmsim.evidence.validation.summary import not_simulated, summary, totals

    def plain(table: "pd.DataFrame") -> list[dict]:
        return table.astype(object).where(table.notna(), None).to_dict("records")

    return {
        "summary": plain(summary(frame)),
        "totals": plain(totals(frame)),
        "frameworks": plain(summary(frame, ("framework",))),
        "not_simulated": plain(not_simulated(frame)),
        "rows": plain(frame),
    }


def _print(document: dict[str, Any], frame: "pd.DataFrame | None", count: int) -> None:
    from llmsim.cli.console import print_table
    from llmsim.evidence.validation.summary import percent

    figures = ["n", "median", "p90", "worst", "bias"]

    def numbers(row: dict) -> list[object]:
        shown = [percent(row.get(key), key == "bias") for key in figures[1:]]
        return [row["n"], *shown]

    if "kernels" in document:
        rows = [[row["kind"], row["gpu"], *numbers(row)] for row in document["kernels"]]
        print_table("Kernel times", ["kernel", "GPU", *figures], rows, left=2)
    if "collectives" in document:
        rows = [[row["by"], row["value"], *numbers(row)] for row in document["collectives"]]
        print_table("Collective times", ["by", "", *figures], rows, left=2)
    if "memory" in document:
        rows = [
            [row["source"], row["definition"], *numbers(row), percent(row["right"]), row["verdicts"]]
            for row in document["memory"]
        ]
        columns = ["source", "what was measured", *figures, "right whether it fits", "of"]
        print_table("Peak memory of published runs", columns, rows, left=2)
    if "collectives_left_out" in document:
        rows = [[row["by"], row["value"], *numbers(row)] for row in document["collectives_left_out"]]
        title = "Collective times, each cluster predicted by constants fitted to the others"
        print_table(title, ["by", "", *figures], rows, left=2)
    if frame is None or "training" not in document:
        return
    from llmsim.evidence.validation.summary import not_simulated, worst

    training = document["training"]
    lines = [row for row in training["summary"] if row["gpu"]]
    lines += [{"source": row["runs"], "gpu": ""} | row for row in training["totals"]]
    rows = [[row["source"], row["gpu"], *numbers(row), row["not_simulated"] or None] for row in lines]
    print_table("Iteration time of published runs", ["source", "GPU", *figures, "not simulated"], rows, left=2)
    rows = [
        [run.id, run.source, run.model, run.gpu, run.layout, *_times(run)] for run in worst(frame, count).itertuples()
    ]
    if rows:
        columns = ["run", "source", "model", "GPU", "layout", "measured", "simulated", "error"]
        print_table("Worst runs (llmsim validate --row ID gives the scenario)", columns, rows, left=5)
    known = worst(frame, count).groupby("known_reason", sort=False)["id"].agg(", ".join)
    for reason, ids in known.items():
        click.echo(f"{ids}: {reason}")
    missing = not_simulated(frame)
    if len(missing):
        rows = [[r.framework, r.reason, r.runs] for r in missing.itertuples()]
        print_table("Not simulated", ["framework", "reason", "runs"], rows, left=2)
    if "cross_validation" in document:
        cross = document["cross_validation"]
        click.echo(cross["note"])
        rows = [[row["source"], row["n"], *_shown(row)] for row in cross["sources"]]
        columns = ["source", "n", "as shipped", "fitted to the others", "bias", "computing", "communication"]
        print_table("Median |error| of each source, and with speeds fitted to all others", columns, rows)


def _times(run: Any) -> list[str | None]:
    from llmsim.evidence.validation.summary import percent

    return [f"{run.measured:.4g} s", f"{run.simulated:.4g} s", percent(run.error, True)]


def _shown(row: dict) -> list[str | None]:
    from llmsim.evidence.validation.summary import percent

    medians = [percent(row["unfitted_median"]), percent(row["median"]), percent(row["bias"], True)]
    return [*medians, *(f"× {row[key]:.2f}" for key in ("computing", "communication"))]
