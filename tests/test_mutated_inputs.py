"""Spoilt inputs of every kind end with 0 or 2 and a sentence, within 20 seconds and 2 GB.

Each run of the suite plays 300; `MUTATED_INPUTS=5000 pytest tests/test_mutated_inputs.py` plays so many, of the seed
`MUTATED_SEED`. `python tests/play_mutated_inputs.py SEED N N+1 1` plays one again.
"""

import json
import os
import subprocess
import sys

from folders import ROOT
from mutated_inputs import KINDS, case
from play_mutated_inputs import MEMORY, SECONDS

CASES, SEED = int(os.environ.get("MUTATED_INPUTS", "300")), int(os.environ.get("MUTATED_SEED", "1"))
WORKERS = 2


def played() -> list[dict]:
    """What became of each case, by its number; a case that ended its process has no status."""
    player = ROOT / "tests" / "play_mutated_inputs.py"
    commands = [
        [sys.executable, str(player), str(SEED), str(first), str(CASES), str(WORKERS)] for first in range(WORKERS)
    ]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    lines = [json.loads(line) for process in started for line in process.communicate()[0].splitlines()]
    done = {line["case"]: line for line in lines if "case" in line}
    begun = [line["begun"] for line in lines if "begun" in line]
    return [done.get(number, {"case": number, "status": "its process died", "err": ""}) for number in sorted(begun)]


def wrong(line: dict) -> str:
    """What is wrong with an answer; empty when nothing is."""
    if line["status"] not in (0, 2):
        return str(line["status"])
    if "Traceback" in line["err"] or (line["status"] == 2 and not line["err"].startswith("llmsim: ")):
        return "no sentence"
    if line["seconds"] > SECONDS or line["peak"] > MEMORY or "memory is not enough" in line["err"]:
        return "too much time or memory"
    return ""


def test_spoilt_inputs_end_with_an_answer_or_a_sentence():
    lines = played()
    assert len(lines) == CASES
    bad = [
        (line["case"], case(SEED, line["case"]).kind, wrong(line), line["err"][:200]) for line in lines if wrong(line)
    ]
    assert not bad, bad
    statuses = [line["status"] for line in lines]
    # Inputs that are all refused at the first key would test little, and so would inputs that all still work.
    assert 0.05 < statuses.count(0) / len(statuses) < 0.5


def test_every_kind_of_input_is_drawn_and_a_case_is_always_the_same():
    drawn = [case(SEED, number) for number in range(300)]
    assert len({one.kind for one in drawn}) == len(KINDS)
    assert drawn == [case(SEED, number) for number in range(300)]
