"""`llmsim explain`: the bottleneck, and what to change."""

from typing import TYPE_CHECKING

import click

from llmsim.cli.options import AS_JSON, SETTINGS, open_scenario

if TYPE_CHECKING:
    from llmsim.studies.explain import Explanation

_MOST = 10  # changes that are shown
_ON_PATH = {
    "tp communication": "tensor parallel communication",
    "cp communication": "context parallel communication",
    "ep communication": "expert parallel communication",
    "dp communication": "data parallel communication",
    "pp communication": "transfers between stages",
    "edp communication": "data parallel communication of experts",
    "shard communication": "data parallel communication in shard groups",
    "replica communication": "data parallel communication between shard groups",
    "pp_prev communication": "transfers between stages",
    "pp_next communication": "transfers between stages",
    "embedding communication": "gradients of the shared embedding",
    "norm communication": "norm of the gradients",
    "optimizer": "optimizer step",
    "host": "waiting for kernel launches",
    "gaps": "launch gaps",
}


@click.command()
@click.argument("scenario")
@SETTINGS
@AS_JSON
def explain(scenario: str, settings: tuple[str, ...], as_json: bool) -> None:
    """What bounds SCENARIO (data, compute, memory or communication), its critical path, and the changes that help."""
    from llmsim.cli.console import SlowProgress, print_json
    from llmsim.studies.explain import explain as find

    loaded = open_scenario(scenario, settings)
    with SlowProgress(f"what-ifs of {loaded.name}") as progress:
        found = find(loaded, progress)
    if as_json:
        print_json(found.record())
    else:
        _print(found)


def _print(found: "Explanation") -> None:
    from llmsim.cli.console import print_table
    from llmsim.units import format_seconds

    metrics = found.result.metrics
    total = metrics["iteration_time_s"]
    click.echo(f"{metrics['name']}: {format_seconds(total)} an iteration")
    click.echo(f"bottleneck: {found.bottleneck}: {found.reason}")
    free = sorted(found.free, key=lambda each: -each.saved)
    rows = [(each.name, format_seconds(each.iteration_time_s), f"{each.saved:.1%}") for each in free]
    print_table("what if (simulated)", ("with", "iteration", "less time"), rows)
    seconds: dict[str, float] = {}
    for name, time in found.on_path.items():
        seconds[_ON_PATH.get(name, name)] = seconds.get(_ON_PATH.get(name, name), 0.0) + time
    path = [(name, format_seconds(time), f"{time / found.path['end_s'].max():.1%}") for name, time in seconds.items()]
    print_table("the critical path", ("what", "seconds", "share"), path)
    if not found.changes:
        click.echo("No single change that was tried is faster and fits.")
        return
    rows = [
        (change.name, f"{change.gain:+.1%}", format_seconds(change.iteration_time_s), f"{change.peak_gib:.1f}",
         " ".join(f"--set {key}={_text(value)}" for key, value in change.settings.items()))
        for change in found.changes[:_MOST]
    ]  # fmt: skip
    click.echo("what to change (simulated, one at a time)")
    for name, gain, time, gib, options in rows:
        click.echo(f"  {gain:>7} tokens/s  {name}: {time} an iteration, {gib} GiB\n           {options}")


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
