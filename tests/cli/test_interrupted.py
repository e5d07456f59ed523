"""What is left when a command ends early: whole files or none, a journal that goes on, a status and no traceback."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import llmsim
from llmsim.errors import UserError
from llmsim.files import written
from llmsim.studies.sweep.journal import Journal

SCENARIO = {
    "name": "small",
    "model": {"layers": 4, "hidden": 512, "heads": 8, "vocab": 8192},
    "cluster": {"topology": "dgx-h100"},
    "training": {"seq_len": 512, "global_batch": 64},
}
POINTS = 60


def command(*arguments: str) -> list:
    code = "import sys; from llmsim.cli import main; main(sys.argv[1:])"
    return [sys.executable, "-c", code, *arguments]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out.csv"
    target.write_text("before")
    with pytest.raises(RuntimeError), written(target) as place:
        place.write_text("half")
        raise RuntimeError
    assert target.read_text() == "before"
    with pytest.raises(UserError, match=r"out.csv: this cannot be written: No space left on device"), written(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(KeyboardInterrupt), written(tmp_path / "new.csv"):
        raise KeyboardInterrupt
    with written(target) as place:
        place.write_text("after")
    assert target.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


def test_ctrl_c_ends_a_sweep_which_then_goes_on(tmp_path):
    (tmp_path / "scenario.json").write_text(json.dumps(SCENARIO))
    sweep = {"scenario": "scenario.json", "grid": {"training.global_batch": [64 * n for n in range(1, POINTS + 1)]}}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    arguments = ["sweep", "sweep.json", "-o", "out.csv", "--workers", "1"]
    journal = tmp_path / "out.csv.journal"
    process = subprocess.Popen(
        command(*arguments), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and err.rstrip().endswith("llmsim: stopped")
    assert not (tmp_path / "out.csv").exists()
    with journal.open("ab") as file:
        file.write(b'{"key": "a line cut in the mid')  # as a kill leaves it
    finished = journal.read_bytes().count(b"\n")
    assert 3 <= finished < POINTS
    again = subprocess.run(command(*arguments), cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2 and "go on with --resume" in again.stderr
    done = subprocess.run(command(*arguments, "--resume"), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["training.global_batch"]) for row in rows] == sweep["grid"]["training.global_batch"]
    assert {row["status"] for row in rows} == {"ok"}


def test_a_journal_cut_anywhere_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "out.journal"
    with Journal(path, resume=False) as journal:
        for key in "abc":
            journal.add(key, {"status": "ok", "value": key})
    content = path.read_bytes()
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        with Journal(path, resume=True) as journal:
            assert len(journal) == content[:cut].count(b"\n")
        assert path.read_bytes() == content[: content[:cut].rfind(b"\n") + 1]


def test_a_terminal_of_ascii_gets_plain_signs(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    answer = subprocess.run(command("run", "quickstart", "--detail", "block"), env=environment, capture_output=True)
    assert answer.returncode == 0 and answer.stderr == b""
    assert b" x H100" in answer.stdout
    answer.stdout.decode("ascii")


def test_ctrl_c_ends_a_search_with_the_best_so_far():
    shares: list[float] = []
    space = {"training.micro_batch": [1, 2, 4], "parallelism.pp": [1]}
    whole = llmsim.search(SCENARIO, space, workers=1, progress=shares.append)

    def stop(share: float, seen: list[float] = []) -> None:  # noqa: B006
        seen.append(share)
        if len(seen) == len(shares) - 1:  # the last but one report: some layouts have been simulated
            raise KeyboardInterrupt

    found = llmsim.search(SCENARIO, space, workers=1, progress=stop)
    assert whole.complete and not found.complete
    assert found.best
