"""Options that several commands share."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from llmsim.scenario import Scenario

MOST_WORKERS = 1024  # processes of one machine; more is a slip of the keyboard
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key, as in --set training.micro_batch=2."
)
DETAIL = click.option("--detail", type=click.Choice(["kernel", "block"]), help="Short for --set simulation.detail=…")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def open_scenario(path: str, settings: tuple[str, ...], detail: str | None = None) -> "Scenario":
    """The scenario with its overrides; warnings are printed to stderr."""
    from llmsim.cli.console import warn
    from llmsim.scenario import load_scenario

    if detail:
        settings = (*settings, f"simulation.detail={detail}")
    scenario = load_scenario(path, settings)
    warn(scenario.warnings)
    return scenario
