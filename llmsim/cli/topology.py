"""`llmsim topology`: what a cluster consists of."""

from typing import Any

import click

from llmsim.cli.options import AS_JSON
from llmsim.units import format_rate, format_seconds

_DEVICES = {
    **{"gpu": "GPUs", "cpu": "CPUs", "nic": "NICs", "nvswitch": "NVSwitches"},
    **{"pcie": "PCIe switches", "leaf": "leaves"},
}


@click.command()
@click.argument("name", metavar="TOPOLOGY")
@click.option("--nodes", type=click.IntRange(min=1), default=2, show_default=True, help="Nodes of the cluster.")
@click.option("--gpus-per-node", type=click.IntRange(min=1), help="GPUs used in each node; all when left out.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the topology file.")
@click.option("--plot", metavar="OUT", help="Draw the graph: OUT.png, .svg or .pdf.")
@AS_JSON
def topology(
    name: str, nodes: int, gpus_per_node: int | None, settings: tuple[str, ...], plot: str | None, as_json: bool
) -> None:
    """What TOPOLOGY (a name or a file) holds at this size: devices, links, bisection bandwidth, diameter."""
    from llmsim.cli.console import print_json
    from llmsim.cluster.describe import describe
    from llmsim.cluster.reading.load import load_topology
    from llmsim.files import PICTURES, check_output
    from llmsim.scenario.overrides import parse_override

    check_output(plot, PICTURES)
    found = load_topology(name, dict(parse_override(text) for text in settings))
    facts = describe(found, nodes, gpus_per_node)
    if plot:
        from llmsim.plots import plot_topology, save_figure

        save_figure(plot_topology(found, nodes), plot)
    print_json(facts) if as_json else _print(facts)


def _print(facts: dict[str, Any]) -> None:
    from llmsim.cli.console import print_table

    click.echo(f"{facts['name']}: {facts['description']}")
    counts = ", ".join(_counted(count, kind) for kind, count in facts["counts"].items())
    click.echo(f"{_counted(facts['nodes'], 'node')} of {facts['gpus_per_node']} × {facts['gpu']}: {counts}\n")
    for label, text in _figures(facts):
        click.echo(f"  {label:<24}{text}")
    rows = [[k, f"{link['count']:,}", _range(link["lowest"], link["highest"])] for k, link in facts["links"].items()]
    print_table("", ("directed links", "count", "bandwidth of one"), rows)
    for source in facts["sources"]:
        click.echo(f"source: {source}")


def _counted(count: int, kind: str) -> str:
    many = _DEVICES.get(kind, f"{kind}s")
    one = {"pcie": "PCIe switch", "leaf": "leaf"}.get(kind, many.removesuffix("s"))
    return f"{count:,} {one if count == 1 else many}"


def _figures(facts: dict[str, Any]) -> list[tuple[str, str]]:
    outside, over = facts["scale_out_bandwidth"], facts["oversubscription"]
    rows = [
        ("a GPU inside its node", format_rate(facts["scale_up_bandwidth"])),
        ("a GPU to other nodes", format_rate(outside) if outside else "no network in use"),
        ("bisection bandwidth", format_rate(facts["bisection_bandwidth"])),
        ("longest route", f"{facts['diameter_hops']} links, {format_seconds(facts['max_latency'])}"),
    ]
    if over:
        rows.append(("oversubscription", f"{over:g} : 1"))
    return rows + [(f"storage, {way}", format_rate(rate)) for way, rate in facts["storage"].items() if rate]


def _range(lowest: float, highest: float) -> str:
    return format_rate(lowest) if lowest == highest else f"{format_rate(lowest)} to {format_rate(highest)}"
