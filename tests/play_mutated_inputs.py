"""A process that plays mutated inputs one after the other: from a seed and numbers to a JSON line for each.

`python tests/play_mutated_inputs.py SEED FIRST LAST STEP`. A line says which case, exit status, seconds, the most
memory so far, and what was printed to stderr. Memory is bounded for the process, time for each case.
"""

import contextlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from mutated_inputs import Case, case

from llmsim.cli import main

SECONDS = 20
MEMORY = 2 * 2**30


class TooLong(BaseException):
    """A case that took more than `SECONDS`; no `except Exception` may swallow it."""


def play(one: Case, folder: Path) -> tuple[object, str]:
    """Exit status (or what was raised) and stderr of the case's command."""
    out, err = io.StringIO(), io.StringIO()
    arguments = one.call(folder)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
        status: object = "no exit"
    except SystemExit as done:
        status = done.code
    except TooLong:
        status = f"more than {SECONDS} s"
    except BaseException as error:
        status = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    failed = one.kind == "sweep" and (folder / "out.csv").exists() and ",failed," in (folder / "out.csv").read_text()
    return ("a run of the sweep failed" if failed else status), err.getvalue()


def _stop(signum: int, frame: FrameType | None) -> None:
    raise TooLong


def work(seed: int, first: int, last: int, step: int) -> None:
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    signal.signal(signal.SIGALRM, _stop)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for number in range(first, last, step):
        with tempfile.TemporaryDirectory() as folder:
            lines.write(json.dumps({"begun": number}) + "\n")
            start = time.perf_counter()
            status, err = play(case(seed, number), Path(folder))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            seconds = time.perf_counter() - start
            lines.write(
                json.dumps({"case": number, "status": status, "seconds": seconds, "peak": peak, "err": err}) + "\n"
            )


if __name__ == "__main__":
    work(*(int(text) for text in sys.argv[1:]))
