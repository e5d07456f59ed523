"""The `llmsim` command. Each command is a small module that is imported when it is called, so that `--help` is quick.

Exit status: 0 done, 1 a negative answer where a yes was asked for, 2 the user's input is wrong, 3 a bug in llmsim.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from llmsim import __version__
from llmsim.cli.encoding import print_anywhere
from llmsim.errors import LlmsimError, UserError

# name: (module of llmsim.cli, one line of help), in the order that --help shows
COMMANDS = {
    "run": ("run", "Simulate a scenario and say where the time goes."),
    "plot": ("plot", "Draw a scenario or a saved trace."),
    "models": ("catalogue", "Models of the catalogue."),
    "gpus": ("catalogue", "GPUs of the catalogue."),
    "scenarios": ("catalogue", "Scenarios that come with llmsim and can be run by name."),
    "topologies": ("catalogue", "Cluster topologies that can be named in a scenario."),
    "topology": ("topology", "What a topology's graph holds: counts, bandwidths, bisection, diameter."),
    "collective": ("collective", "Play a collective on a cluster: the table that nccl-tests would print."),
    "schedule": ("schedule", "Play a pipeline schedule alone, or compare several."),
    "schedules": ("catalogue", "Pipeline schedules that a scenario can ask for."),
    "frameworks": ("catalogue", "Training frameworks whose habits a scenario can take over."),
    "validate": ("validate", "Compare simulations with published training runs: the error table."),
    "calibrate": ("calibrate", "Fit constants to what was measured on your cluster."),
    "sweep": ("sweep", "Simulate a scenario at many points, one row each."),
    "export": ("export", "Save a simulated trace in another tool's format."),
    "explain": ("explain", "What bounds a run, and which changes would make it faster."),
    "scale": ("scale", "Strong and weak scaling: the same scenario on ever more nodes."),
    "goodput": ("goodput", "The whole job: failures, checkpoints, restarts, and what they cost."),
    "plan": ("plan", "How many GPUs it takes to train on so many tokens in so many days."),
    "budget": ("budget", "Which model a cluster is worth in so many days."),
    "search": ("search", "Find the best parallel layout for a model, a cluster and a batch."),
}
NOT_YET = ("import", "report")  # promised, and not built: said so, unless a command has come


class LazyGroup(click.Group):
    """Commands from COMMANDS, whose help lines are known without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return getattr(import_module(f"llmsim.cli.{COMMANDS[name][0]}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from llmsim.errors import nearest

            if args[0] in NOT_YET:
                raise UserError(f"the command {args[0]!r} is not supported yet") from None
            hint = nearest(args[0], COMMANDS) or f"; commands: {', '.join(COMMANDS)}"
            raise UserError(f"there is no command {args[0]!r}{hint}") from None


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"llmsim {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an internal error.")
def cli() -> None:
    """How long does one training iteration take on this cluster, where does the time go, does it fit?

    Start with: llmsim run quickstart
    """


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point: runs a command and turns every error into a short message and an exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments  # wherever it stands
    arguments = [argument for argument in arguments if argument != "--debug"]
    print_anywhere()
    try:
        status = _called(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # what stdout refuses shows here, and not when Python ends
    except UserError as error:
        _complain(f"llmsim: {error}" if "\n" not in str(error) else _many(str(error)), 2)
    except click.ClickException as error:
        usage = getattr(error, "ctx", None)
        hint = f" (see `{usage.command_path} --help`)" if usage else ""
        _complain(f"llmsim: {error.format_message().rstrip('.')}{hint}", 2)
    except (click.Abort, KeyboardInterrupt):
        _complain("llmsim: stopped", 130)
    except BrokenPipeError:
        # The reader of our output has gone, as in `llmsim models | head`; that is no error.
        _silence()
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError | MemoryError):  # the machine's limits, not a mistake of llmsim's
            _silence()
            _complain(f"llmsim: {_limit(error)}", 2)
        kind = "" if isinstance(error, LlmsimError) else f"{type(error).__name__}: "
        _complain(f"llmsim: internal error: {kind}{error}\nThis is a bug; --debug shows where it happened.", 3)
    sys.exit(status if isinstance(status, int) else 0)


def _called(arguments: list[str]) -> object:
    """The command's exit status. As `cli.main`, which would end with 1 when the reader of our output has gone."""
    if "_LLMSIM_COMPLETE" in os.environ:
        cli.main(arguments, prog_name="llmsim")  # a shell asks for completions
    try:
        with cli.make_context("llmsim", arguments) as context:
            return cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code


def _silence() -> None:
    """Nothing more to stdout, not even what is in its buffer when Python ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # no file behind it, as in a test
        return


def _limit(error: OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "this machine's memory is not enough for it; fewer micro-batches or --set simulation.detail=block help"
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}cannot read or write: {error.strerror or error}"


def _many(text: str) -> str:
    lines = text.splitlines()
    return "\n".join([f"llmsim: {len(lines)} mistakes:", *(f"  {line}" for line in lines)])


def _complain(text: str, status: int) -> NoReturn:
    with contextlib.suppress(OSError):  # stderr may be gone or full too
        click.echo(text, err=True)
    sys.exit(status)
