"""`llmsim calibrate`: constants of a user's own cluster."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmsim.cli.options import AS_JSON

if TYPE_CHECKING:
    from llmsim.evidence.calibration.result import Calibration


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--topology", metavar="T", help="nccl-tests: the cluster, a name or a topology file.")
@click.option("--operation", metavar="OP", help="nccl-tests: the collective, where the log does not say.")
@click.option("--nodes", type=click.IntRange(min=1), help="nccl-tests: nodes; the log's hosts when left out.")
@click.option("--gpus-per-node", type=click.IntRange(min=1), help="nccl-tests: GPUs used in each node.")
@click.option("--gpu", metavar="NAME", help="Matrix products: the GPU, a name from `llmsim gpus`.")
@click.option("-o", "--output", metavar="OUT.yaml", help="Write a calibration file, for simulation.calibration.")
@AS_JSON
def calibrate(
    file: str,
    topology: str | None,
    operation: str | None,
    nodes: int | None,
    gpus_per_node: int | None,
    gpu: str | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Fit constants of the catalogue to what was measured on your cluster, and say how well each is determined.

    FILE is a log of nccl-tests, a table of matrix products (.csv: m, n, k and time_us or tflops), or measured
    iterations (.yaml: a list of {scenario: run.yaml, time: 12.3 s}).
    """
    from llmsim.cli.console import SlowProgress, print_json
    from llmsim.errors import UserError
    from llmsim.files import check_output

    path = Path(file)
    if output:
        check_output(output, (".yaml", ".yml"))
    if path.is_dir():
        raise UserError(f"{file}: this is a folder; expected a log of nccl-tests, a .csv or a .yaml")
    if not path.exists():
        raise UserError(f"{file}: there is no such file; expected a log of nccl-tests, a .csv or a .yaml")
    if path.suffix in (".yaml", ".yml", ".json"):
        from llmsim.evidence.calibration.iterations import calibrate_iterations

        with SlowProgress("simulating") as progress:
            found = calibrate_iterations(path, progress)
    elif path.suffix == ".csv":
        from llmsim.evidence.calibration.kernels import calibrate_kernels

        if gpu is None:
            raise UserError(f"{file}: --gpu is missing; name the GPU that was measured, as --gpu h100-sxm")
        found = calibrate_kernels(path, gpu)
    else:
        from llmsim.evidence.calibration.collectives import calibrate_collectives

        if topology is None:
            raise UserError(f"{file}: --topology is missing; name what was measured, as --topology dgx-h100")
        found = calibrate_collectives(path, topology, operation, nodes, gpus_per_node)
    if output:
        found.write(output)
    if as_json:
        print_json(found.record())
    else:
        _print(found)


def _print(found: "Calibration") -> None:
    from llmsim.cli.console import print_table

    rows = [
        [".".join(c.path), f"{c.catalogue:.4g}", f"{c.value:.4g}", f"±{100 * c.deviation:.0f} %", c.verdict]
        for c in found.constants
        if c.verdict != "not determined"
    ]
    click.echo(found.sentence)
    if rows:
        print_table("", ["constant", "catalogue", "calibrated", "uncertainty", "verdict"], rows)
    others = [".".join(c.path[1:]) for c in found.constants if c.verdict == "not determined"]
    if others:
        click.echo(f"not determined by these measurements: {', '.join(others)}")
