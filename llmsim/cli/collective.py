"""`llmsim collective`: what nccl-tests would print on this cluster."""

from typing import TYPE_CHECKING

import click

from llmsim.cli.options import AS_JSON

if TYPE_CHECKING:
    from llmsim.standalone.collective import CollectiveResult, Communicator


@click.command()
@click.argument("operation", metavar="OP")
@click.option("--topology", required=True, metavar="T", help="A name from `llmsim topologies`, or a topology file.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Nodes of the cluster.")
@click.option("--gpus-per-node", type=click.IntRange(min=1), help="GPUs used in each node; all when left out.")
@click.option("--sizes", default="1MiB-8GiB", show_default=True, help="Bytes: a range that doubles, or a list.")
@click.option("--algorithm", default="auto", show_default=True, help="ring, tree, nvls, …; auto: as NCCL's tuner.")
@click.option("--protocol", default="auto", show_default=True, help="LL, LL128 or Simple.")
@click.option("--routing", default="ideal", show_default=True, help="ideal, or ecmp-hash with --seed.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the hash.")
@click.option("--slow-link", "slow", multiple=True, metavar="LINK=FACTOR", help="As in --slow-link node3.nic2=0.5.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the topology file.")
@click.option("--plot", metavar="OUT", help="Draw bus bandwidth by size: OUT.png, .svg or .pdf.")
@click.option("--trace", metavar="OUT", help="Save every step of the largest size: OUT.parquet or OUT.csv.")
@AS_JSON
def collective(
    operation: str,
    topology: str,
    nodes: int,
    gpus_per_node: int | None,
    sizes: str,
    algorithm: str,
    protocol: str,
    routing: str,
    seed: int,
    slow: tuple[str, ...],
    settings: tuple[str, ...],
    plot: str | None,
    trace: str | None,
    as_json: bool,
) -> None:
    """Play OP over all GPUs of a cluster: time, algorithm and bus bandwidth by message size, as nccl-tests prints them.

    OP: all_reduce, all_gather, reduce_scatter, broadcast, all_to_all or send_recv.
    """
    from llmsim.cli.console import print_json
    from llmsim.collectives import sizes as parse_sizes
    from llmsim.files import PICTURES, TABLES, check_output, write_table
    from llmsim.scenario.overrides import parse_override
    from llmsim.standalone.collective import communicator, sweep_sizes

    check_output(plot, PICTURES)
    check_output(trace, TABLES)
    group = communicator(
        topology,
        nodes,
        gpus_per_node,
        routing=routing,
        seed=seed,
        slow_links=dict(_slow_link(text) for text in slow),
        overrides=dict(parse_override(text) for text in settings),
    )
    results = sweep_sizes(group, operation, parse_sizes(sizes), algorithm, protocol)
    if trace:
        largest = results[-1]
        write_table(group.run(operation, largest.size, largest.algorithm, largest.protocol).trace, trace)
    if plot:
        from llmsim.plots import plot_collective, save_figure

        title = f"{operation} on {_where(group)}"
        save_figure(plot_collective([result.row for result in results], title=title), plot)
    if as_json:
        print_json(_document(group, results))
    else:
        _print(group, results)


def _slow_link(text: str) -> tuple[str, float]:
    from llmsim.errors import TopologyError

    name, _, factor = text.partition("=")
    try:
        return name, float(factor)
    except ValueError:
        raise TopologyError(f"--slow-link {text!r} cannot be read; write it like node3.nic2=0.5") from None


def _where(group: "Communicator") -> str:
    cluster = group.cluster
    nodes = f"{cluster.nodes:,} node{'s' if cluster.nodes > 1 else ''}"
    return f"{cluster.gpus:,} GPUs, {nodes} of {cluster.topology.name}"


def _document(group: "Communicator", results: list["CollectiveResult"]) -> dict:
    cluster = group.cluster
    return {
        "operation": results[0].operation,
        "topology": cluster.topology.name,
        "nodes": cluster.nodes,
        "gpus": cluster.gpus,
        "routing": group.routing,
        "rows": [result.row | {"links": result.links} for result in results],
    }


def _print(group: "Communicator", results: list["CollectiveResult"]) -> None:
    from llmsim.cli.console import print_table
    from llmsim.units import format_bytes

    rows = [
        [
            format_bytes(r.size),
            f"{r.time_s * 1e6:,.1f}",
            f"{r.algbw / 1e9:.2f}",
            f"{r.busbw / 1e9:.2f}",
            r.algorithm,
            r.protocol,
            r.channels,
        ]
        for r in results
    ]
    columns = ("size", "time (µs)", "algbw (GB/s)", "busbw (GB/s)", "algorithm", "protocol", "channels")
    click.echo(f"{results[0].operation} on {_where(group)}")
    print_table("", columns, rows)
    last = results[-1]
    if last.links:
        click.echo(f"links used at {format_bytes(last.size)}:")
        rows = [
            [kind, f"{int(used['links']):,}", format_bytes(used["bytes"]), format_bytes(used["busiest_bytes"])]
            for kind, used in last.links.items()
        ]
        print_table("", ("kind", "links", "bytes in all", "over the busiest"), rows)
