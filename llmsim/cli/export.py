"""`llmsim export`: a simulated iteration in the format of another tool."""

import click

from llmsim.cli.options import DETAIL, SETTINGS, open_scenario
from llmsim.errors import UserError

FORMATS = ("chrome",)
_PROMISED = ("perfetto", "kineto", "chakra", "memory-snapshot", "megatron", "torchtitan", "deepspeed", "nemo")


@click.command()
@click.argument("scenario")
@click.option("--format", "kind", default="chrome", show_default=True, metavar=f"[{'|'.join(FORMATS)}]")
@click.option("-o", "--output", required=True, metavar="OUT", help="OUT.json or OUT.json.gz")
@SETTINGS
@DETAIL
def export(scenario: str, kind: str, output: str, settings: tuple[str, ...], detail: str | None) -> None:
    """Simulate SCENARIO and save its trace; `chrome` opens in ui.perfetto.dev and chrome://tracing."""
    from llmsim.files import check_output, write_text

    if kind not in FORMATS:
        said = "is not supported yet" if kind in _PROMISED else "is not known"
        raise UserError(f"--format {kind} {said}; expected {', '.join(FORMATS)}")
    check_output(output, (".json", ".gz"))
    loaded = open_scenario(scenario, settings, detail)

    import llmsim
    from llmsim.cli.console import SlowProgress
    from llmsim.formats.chrome import chrome_trace

    with SlowProgress(loaded.name) as progress:
        result = llmsim.simulate(loaded, progress=progress)
    write_text(chrome_trace(result.trace, loaded.name), output)
    click.echo(output)
