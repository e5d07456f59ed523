"""The part of a run's screen that says which traffic crosses what."""

from typing import TYPE_CHECKING, Any

from llmsim.analysis.traffic import LINKS, group_name, traffic_per_gpu
from llmsim.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console

_HOTTEST = 3


def print_traffic(out: "Console", metrics: dict[str, Any]) -> None:
    """A table of groups by kinds of link, and the links that are used most; nothing where GPUs send nothing."""
    from llmsim.cli.console import print_table

    groups = traffic_per_gpu(metrics)
    if not groups:
        return
    kinds = [kind for kind in LINKS if any(kind in crossed for crossed in groups.values())]
    rows = [
        [group_name(group), *(format_bytes(crossed[kind]) if kind in crossed else None for kind in kinds)]
        for group, crossed in groups.items()
    ]
    out.print("\ntraffic of one iteration over each kind of link, per GPU", style="bold")
    print_table("", ("group", *(LINKS[kind] for kind in kinds)), rows)
    hottest = metrics["network"]["hottest"][:_HOTTEST]
    links = ", ".join(f"{link['link']} {link['utilization']:.1%}" for link in hottest)
    out.print(f"  hottest links, share of the iteration that they are full: {links}", markup=False, soft_wrap=True)
