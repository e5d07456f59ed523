"""`llmsim export`: a simulated iteration in the format of another tool."""

import click

from llmsim.cli.options import DETAIL, SETTINGS, open_scenario
from llmsim.errors import UserError

FORMATS = ("chrome", "kineto", "chakra")
_BUILT = ("chrome",)


@click.command()
@click.argument("scenario")
@click.option("--format", "kind", type=click.Choice(FORMATS), default="chrome", show_default=True)
@click.option("-o", "--output", required=True, metavar="OUT", help="OUT.json or OUT.json.gz")
@SETTINGS
@DETAIL
def export(scenario: str, kind: str, output: str, settings: tuple[str, ...], detail: str | None) -> None:
    """Simulate SCENARIO and save its trace; `chrome` opens in ui.perfetto.dev and chrome://tracing."""
    from llmsim.files import check_output, write_text

    if kind not in _BUILT:
        raise UserError(f"--format {kind} is not supported yet; expected {', '.join(_BUILT)}")
    check_output(output, (".json", ".gz"))
    loaded = open_scenario(scenario, settings, detail)

    import llmsim
    from llmsim.cli.console import SlowProgress
    from llmsim.export.chrome import chrome_trace

    with SlowProgress(loaded.name) as progress:
        result = llmsim.simulate(loaded, progress=progress)
    write_text(chrome_trace(result.trace, loaded.name), output)
    click.echo(output)
