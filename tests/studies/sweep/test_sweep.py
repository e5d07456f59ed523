"""Sweeps: which points, one row each whatever happens, kills and resumes, any number of workers, dask."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from folders import ROOT

import llmsim
from llmsim.cli import main
from llmsim.errors import UserError
from llmsim.studies.sweep import expand
from llmsim.studies.sweep.file import load_sweep
from llmsim.studies.sweep.journal import Journal
from llmsim.studies.sweep.outcome import flatten, key_of
from llmsim.studies.sweep.points import zipped
from llmsim.studies.sweep.sweep import journal_path
from llmsim.studies.sweep.workers import run_local


@pytest.fixture(scope="module")
def tiny():
    return llmsim.Scenario(
        name="tiny",
        model={"layers": 8, "hidden": 512, "heads": 8, "vocab": 1024},
        cluster={"topology": "dgx-a100", "nodes": 1},
        training={"seq_len": 512, "global_batch": 32},
    )


def test_a_grid_is_all_combinations_with_the_last_key_varying_fastest():
    points = expand({"a.b": [1, 2], "c": {"range": [4, 16, 4]}})
    assert len(points) == 8
    assert points[0] == {"a.b": 1, "c": 4} and points[1] == {"a.b": 1, "c": 8}
    assert points[-1] == {"a.b": 2, "c": 16}


@pytest.mark.parametrize(
    ("limits", "values"),
    [([16, 64, 16], [16, 32, 48, 64]), ([1, 64, "x2"], [1, 2, 4, 8, 16, 32, 64]), ([1, 3], [1, 2, 3]),
     ([0.5, 1.5, 0.5], [0.5, 1.0, 1.5]), ([1, 10, "x3"], [1, 3, 9]), ([5, 5, 5], [5])],
)  # fmt: skip
def test_ranges_include_their_ends(limits, values):
    assert [point["k"] for point in expand({"k": {"range": limits}})] == values


def test_keys_that_go_together():
    assert expand({"a, b": [[8, 1], [4, 2]], "c": [0]}) == [{"a": 8, "b": 1, "c": 0}, {"a": 4, "b": 2, "c": 0}]
    assert zipped({"a": [8, 4], "b": {"range": [1, 2]}}) == [{"a": 8, "b": 1}, {"a": 4, "b": 2}]


@pytest.mark.parametrize(
    ("grid", "words"),
    [({"k": []}, "empty"), ({"k": {"range": [4, 1]}}, "does not grow"), ({"k": {"range": [1, 4, "x1"]}}, "grow"),
     ({"k": {"range": "1-4"}}, "no range"), ({"a, b": [1]}, "does not give each"), ([], "empty"), ([3], "no mapping"),
     ("a=1", "no grid"), ({"a": range(5000), "b": range(5000)}, "combinations"), ({"k": {"range": [1, 4, 0]}}, "grow")],
)  # fmt: skip
def test_grids_that_cannot_be_read(grid, words):
    with pytest.raises(UserError, match=words):
        expand(grid)


def test_a_row_has_its_point_its_status_and_every_metric(tiny):
    table = llmsim.sweep(tiny, {"parallelism.tp": [1, 2], "training.micro_batch": [1, 2]}, workers=1)
    assert list(table.columns[:4]) == ["parallelism.tp", "training.micro_batch", "status", "reason"]
    assert len(table) == 4 and set(table["status"]) <= {"ok", "out_of_memory"}
    for _, row in table.iterrows():
        changed = tiny.with_values({key: row[key] for key in table.columns[:2]} | {"simulation.detail": "block"})
        for name, value in flatten(llmsim.simulate(changed).metrics).items():
            assert row[name] == value, name
    parts = table.filter(like="time_breakdown.").sum(axis=1)
    assert parts.to_numpy() == pytest.approx(table["iteration_time_s"].to_numpy())


def test_mistakes_are_rows(tiny):
    points = [{}, {"parallelism.tp": 3}, {"parallelism.tpp": 2}, {"cluster.topology": "no-such"}, {"name.x": 1}]
    table = llmsim.sweep(tiny, points, workers=1)
    assert list(table["status"]) == ["ok", *["invalid"] * 4]
    assert "parallelism.tp: 3 does not fit" in table["reason"][1]
    assert "did you mean 'tp'" in table["reason"][2]
    assert table["reason"].iloc[1:].str.len().min() > 10
    assert table["iteration_time_s"].iloc[1:].isna().all()


def test_the_same_whatever_the_number_of_workers(tiny):
    grid = {"parallelism.tp": [1, 2, 3, 4], "parallelism.pp": [1, 2, 4], "training.micro_batch": [1, 2]}
    alone = llmsim.sweep(tiny, grid, workers=1)
    together = llmsim.sweep(tiny, grid, workers=2)
    pd.testing.assert_frame_equal(alone, together)


def test_written_and_read_back(tiny, tmp_path):
    grid = {"parallelism.dp": [None, 8, 3], "training.recompute": ["none", {"mode": "full", "layers": 2}]}
    for name in ("out.csv", "out.parquet"):
        table = llmsim.sweep(tiny, grid, workers=1, out=tmp_path / name)
        read = pd.read_csv(tmp_path / name) if name.endswith("csv") else pd.read_parquet(tmp_path / name)
        assert len(read) == len(table) == 6
        times = [list(frame["iteration_time_s"].dropna()) for frame in (read, table)]
        assert times[0] == pytest.approx(times[1], rel=1e-15)  # pandas before 3 may read the last digit otherwise
    again = llmsim.sweep(tiny, grid, workers=1, out=tmp_path / "out.csv")  # a finished sweep may be repeated
    pd.testing.assert_frame_equal(again, table)


def test_nothing_lost_and_nothing_run_twice(tiny, tmp_path, monkeypatch):
    grid = {"training.micro_batch": [1, 2, 4], "parallelism.tp": [1, 2]}
    whole = llmsim.sweep(tiny, grid, workers=1)
    out = tmp_path / "out.csv"
    ran = []

    def stop_after_two(fraction):
        ran.append(fraction)
        if len(ran) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llmsim.sweep(tiny, grid, workers=1, out=out, progress=stop_after_two)
    journal = journal_path(out)
    with open(journal, "ab") as file:
        file.write(b'{"key": "cut sh')  # as a kill in the middle of a write leaves it
    with pytest.raises(UserError, match="--resume"):
        llmsim.sweep(tiny, grid, workers=1, out=out)
    more = []
    resumed = llmsim.sweep(tiny, grid, workers=1, out=out, resume=True, progress=more.append)
    assert len(more) == 4 and more[-1] == 1.0
    pd.testing.assert_frame_equal(resumed, whole)
    keys = [json.loads(line).get("key") for line in journal.read_text().splitlines()]
    assert len(keys) == 7 and len(set(keys)) == 7


def test_a_journal_has_one_writer(tmp_path):
    with Journal(tmp_path / "x.journal", resume=False) as journal:
        journal.add("k", {"status": "ok"})
        with pytest.raises(UserError, match="another sweep"):
            Journal(tmp_path / "x.journal", resume=True)
    with Journal(tmp_path / "x.journal", resume=True) as journal:
        assert "k" in journal and journal.row("k") == {"status": "ok"}


def test_keys_change_with_all_that_matters(tiny):
    assert key_of(tiny, {"parallelism.tp": 2}) == key_of(tiny.with_values({"parallelism.tp": 2}), {})
    assert key_of(tiny, {"parallelism.tp": 2}) != key_of(tiny, {"parallelism.tp": 4})
    assert key_of(tiny, {"name.x": 1}) != key_of(tiny, {"name.y": 1})


def _dies_on_three(shared, task):
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task + shared


def test_a_task_that_kills_its_worker_is_alone_in_failing():
    results = dict(run_local(_dies_on_three, 10, [(str(n), n) for n in range(6)], 2))
    assert {key: value for key, value in results.items() if key != "3"} == {str(n): n + 10 for n in (0, 1, 2, 4, 5)}
    assert isinstance(results["3"], Exception)


def test_sweep_files(tmp_path):
    loaded = load_sweep(ROOT / "scenarios/sweep-cluster-size.yaml")
    assert len(loaded.points) == 180 and loaded.scenario.name == "quickstart"
    file = tmp_path / "s.yaml"
    path = ROOT / "scenarios/quickstart.yaml"
    file.write_text(
        f"scenario: {path}\nset: {{training.micro_batch: 1}}\ngrid: {{parallelism.tp: [1, 2]}}\n"
        "zip: {parallelism.pp: [1, 2], parallelism.vpp: [1, 1]}\npoints: [{}, {training.recompute: full}]\n"
    )
    points = load_sweep(file).points
    assert len(points) == 8 and all(point["training.micro_batch"] == 1 for point in points)
    for text, words in [
        (f"scenario: {path}\ngrd: {{}}", "did you mean 'grid'"),
        (f"scenario: {path}", "nothing to sweep"),
        ("grid: {a: [1]}", "scenario: missing"),
        (f"scenario: {path}\ngrid: [1]", "grid: .* no mapping"),
        (f"scenario: {path}\nzip: {{a: [1], b: [1, 2]}}", "equally many"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            load_sweep(file)


def test_a_sweep_without_a_valid_point_is_a_mistake(tmp_path):
    file, out = tmp_path / "s.yaml", tmp_path / "out.csv"
    file.write_text(f"scenario: {ROOT / 'scenarios/quickstart.yaml'}\ngrid: {{parallelism.tpp: [1, 2]}}\n")
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(file), "-o", str(out), "--workers", "1"])
    assert ended.value.code == 2
    assert "did you mean 'tp'" in out.read_text()


def until(condition, seconds=20.0):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.05)


def alive_in_session(leader: int) -> list[int]:
    """Processes in the session of `leader`, as /proc knows them; none where there is no /proc."""
    alive = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = file.read_text().rpartition(")")[2].split()[:4]
            if session == str(leader) and state != "Z":
                alive.append(int(file.parent.name))
    return alive


@pytest.mark.slow
def test_killed_with_signal_9_and_resumed(tmp_path):
    out = tmp_path / "out.csv"
    command = [sys.executable, "-m", "llmsim.cli", "sweep", "scenarios/sweep-cluster-size.yaml", "-o", str(out)]
    command[1:3] = ["-c", "from llmsim.cli import main; main()"]
    process = subprocess.Popen([*command, "--workers", "2"], cwd=ROOT, start_new_session=True)
    journal = journal_path(out)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 20:
        time.sleep(0.02)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not alive_in_session(process.pid))  # the workers leave too
    before = journal.read_bytes().count(b"\n")
    done = subprocess.run([*command, "--resume"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    keys = [json.loads(line).get("key") for line in journal.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 181 and before < 181
    assert len(pd.read_csv(out)) == 180


@pytest.mark.slow
def test_dask_with_a_worker_that_is_killed(tiny):
    distributed = pytest.importorskip("distributed")
    grid = {"parallelism.tp": [1, 2, 4], "parallelism.pp": [1, 2, 4], "training.micro_batch": [1, 2],
            "training.seq_len": [512, 1024]}  # fmt: skip
    expected = llmsim.sweep(tiny, grid, workers=1)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    )
    killed = []

    def kill_one(fraction):
        if not killed and fraction > 0.2:
            process = next(iter(cluster.workers.values())).process
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)

    with cluster:
        table = llmsim.sweep(tiny, grid, scheduler=cluster.scheduler_address, progress=kill_one)
    assert killed
    pd.testing.assert_frame_equal(table, expected)


def test_a_scheduler_that_is_not_there(tiny):
    pytest.importorskip("distributed")
    with pytest.raises(UserError, match="scheduler"):
        llmsim.sweep(tiny, {"parallelism.tp": [1]}, scheduler="no-such-protocol://x")
