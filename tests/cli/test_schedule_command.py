"""`llmsim schedule` and `compare_schedules`: equal work, the figures of the closed forms, and one-sentence mistakes."""

import json

import pandas as pd
import pytest

import llmsim
from llmsim.cli import main
from llmsim.errors import ScheduleError


def run(capsys, *arguments):
    """(exit status, stdout, stderr) of `llmsim schedule …`."""
    with pytest.raises(SystemExit) as ended:
        main(["schedule", *map(str, arguments)])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


SIZE = ("--stages", 4, "--micro-batches", 8)


def test_json_has_the_figures_of_the_python_result(capsys):
    status, out, err = run(capsys, "zb-h1", *SIZE, "--comm", 0.1, "--forward", "1,2,1,1", "--json")
    expected = llmsim.simulate_schedule("zb-h1", 4, 8, forward=[1, 2, 1, 1], comm=0.1)
    assert (status, err) == (0, "")
    assert json.loads(out) == expected.metrics
    assert json.loads(out)["makespan_s"] == expected.makespan_s


def test_screen_names_both_bubbles(capsys):
    out = run(capsys, "1f1b", *SIZE)[1]
    assert "makespan      33 s" in out
    assert "27.27% of the makespan, 37.50% of the busy time" in out  # (p-1)/(m+p-1) and (p-1)/m


def test_files_it_writes_are_read_back(capsys, tmp_path):
    table, trace = tmp_path / "mine.csv", tmp_path / "trace.csv"
    run(capsys, "zb-v", *SIZE, "--table", table, "--trace", trace, "--plot", tmp_path / "t.svg")
    assert json.loads(run(capsys, table, "--json")[1])["makespan_s"] == 51.0
    assert pd.read_csv(trace)["end_s"].max() == 51.0
    assert "zb-v, 4 stages" in (tmp_path / "t.svg").read_text()
    run(capsys, "zb-v", *SIZE, "--plot", tmp_path / "t.html")
    assert "zb-v, 4 stages" in (tmp_path / "t.html").read_text()


def test_comparison_gives_every_schedule_the_same_work(capsys):
    names = "1f1b,interleaved,zb-h1,zb-h2,zb-v,dualpipe"
    arguments = ("--compare", names, "--stages", 8, "--micro-batches", 32, "--memory-limit", 8, "--json")
    rows = {row["schedule"]: row for row in json.loads(run(capsys, *arguments)[1])["schedules"]}
    for row in rows.values():
        assert row["makespan_s"] * (1 - row["bubble_fraction"]) == pytest.approx(32 * 3)
    assert rows["interleaved"]["makespan_s"] == pytest.approx((32 + 7 / 2) * 3)
    assert (rows["zb-h2"]["activations"], rows["zb-h2"]["fits"]) == (15, False)
    assert rows["zb-v"]["activations"] == 8
    assert [name for name, row in rows.items() if row["best"]] == ["zb-v"]


def test_uneven_parts_of_the_model_are_cut_with_their_chunks():
    uneven = [3.0, 1.0, 1.0, 1.0]
    table = llmsim.compare_schedules(["1f1b", "interleaved"], 4, 16, chunks=3, forward=uneven).set_index("schedule")
    expected = llmsim.simulate_schedule(
        "interleaved", 4, 16, 3, [1, 1, 1] + [1 / 3] * 9, backward=1 / 3, weight=1 / 3
    ).makespan_s
    assert table.loc["interleaved", "makespan_s"] == pytest.approx(expected)
    assert (table["chunks"] == [1, 3]).all()


def test_several_sizes_are_a_table_and_curves(capsys, tmp_path):
    sizes = ("--stages", 4, "--micro-batches", "4,8,16")
    status, out, err = run(capsys, "--compare", "1f1b,dualpipe", *sizes, "--plot", tmp_path / "curves.png")
    assert status == 0
    assert "dualpipe needs at least 2 micro-batches per stage; 4 over 4" in err
    assert len([line for line in out.splitlines() if line.startswith(" 1f1b")]) == 3
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    table = llmsim.compare_schedules(["interleaved", "zb-v"], 4, 8, chunks=[2, 4])
    assert table[["schedule", "chunks"]].values.tolist() == [["interleaved", 2], ["interleaved", 4], ["zb-v", 2]]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "expected the NAME of a schedule or --compare A,B,…; neither is given"),
        (("1f1b", "--compare", "gpipe", *SIZE), "both are given"),
        (("1f1b",), "stages is missing"),
        (("1fb1", *SIZE), "did you mean '1f1b'?"),
        (("--compare", "1f1b,zb-h9", *SIZE), "schedule 'zb-h9' is not known"),
        (("--compare", "1f1b", "--stages", 4), "--micro-batches is missing"),
        (("--compare", "dualpipe", "--stages", 3, "--micro-batches", 8), "3 is odd, expected 4"),
        (("1f1b", *SIZE, "--forward", "1,2"), "forward: 2 times given; expected one number, or one for each of 4"),
        (("1f1b", *SIZE, "--weight=-1"), "weight: -1 is no time"),
        (("1f1b", *SIZE, "--comm", "x"), "'x' is not a number; expected such as 4"),
        (("1f1b", "--stages", "4,8", "--micro-batches", 8), "--stages: a list goes with --compare"),
        (("1f1b", *SIZE, "--overlap", 0), "overlap: 0.0 is not a ratio"),
        (("1f1b", *SIZE, "--plot", "t.gif"), "t.gif: the name must end in"),
        (("interleaved", "--stages", 4, "--micro-batches", 9), "expected a multiple of the stages, such as 8 or 12"),
        (("zb-auto", *SIZE, "--memory-limit", 0.5), "memory_limit: 0.5 on rank 0 does not hold one micro-batch"),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence(capsys, arguments, part):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert part in err
    assert err.count("\n") == 1


def test_nothing_to_compare():
    with pytest.raises(ScheduleError, match="no schedules to compare"):
        llmsim.compare_schedules([], 4, 8)


@pytest.mark.parametrize("name", ["1f1b", "interleaved", "zb-v", "dualpipe"])
def test_a_table_is_compared_like_the_schedule_it_holds(tmp_path, capsys, name):
    table = tmp_path / "mine.csv"
    run(capsys, name, *SIZE, "--table", table)
    status, out, _ = run(capsys, "--compare", f"{table},{name}", *SIZE, "--json")
    mine, known = json.loads(out)["schedules"]
    assert status == 0 and mine.pop("schedule") == str(table) and known.pop("schedule") == name
    assert mine == known
