"""`llmsim goodput`, `plan` and `validate --job`: what they print, what they refuse, what notebooks get."""

import json

import pandas as pd
import pytest

import llmsim
from llmsim.cli import main
from llmsim.evidence.validation.job import job_rows

SHORT = ["--set", "job.iterations=20000", "--set", "job.checkpoint.stall=20 s"]
FAILING = [*SHORT, "--set", "job.failures.job_mtbf=2 h"]


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    shown = capsys.readouterr()
    return stop.value.code, shown.out, shown.err


def test_goodput_as_json(capsys):
    status, out, _ = run(capsys, "goodput", "quickstart", *FAILING, "--runs", "20", "--seed", "3", "--json")
    answer = json.loads(out)
    assert status == 0 and answer["runs"] == 20
    assert set(answer["lost_s"]) == {
        "checkpoint", "detection", "restart", "load", "recomputed", "degraded", "waiting",
    }  # fmt: skip
    assert answer["productive_s"] + sum(answer["lost_s"].values()) == pytest.approx(answer["elapsed_s"])
    assert answer["productive_s"] == pytest.approx(20000 * answer["iteration_time_s"])
    assert (
        answer["goodput_quantiles"]["p10"] <= answer["goodput_quantiles"]["p50"] <= answer["goodput_quantiles"]["p90"]
    )
    assert answer["days"]["p10"] <= answer["days"]["p50"] <= answer["days"]["p90"]
    assert answer["mtbf_s"] == 7200.0 and answer["failures"]["mean"] == sum(answer["failures"]["by_cause"].values())
    assert answer["interval_s"] == answer["best_interval_s"] == pytest.approx(answer["daly_interval_s"], rel=0.1)
    assert answer["ettr"] < answer["effective_training_time"] == pytest.approx(answer["goodput"])
    # Best of what-ifs first, each of them better than now.
    gains = [each["days_saved"] for each in answer["what_if"]]
    assert gains == sorted(gains, reverse=True) and min(gains) > 0
    assert answer == json.loads(
        run(capsys, "goodput", "quickstart", *FAILING, "--runs", "20", "--seed", "3", "--json")[1]
    )


def test_goodput_for_people_with_pictures_and_a_table(capsys, tmp_path):
    places = [str(tmp_path / name) for name in ("job.png", "interval.svg", "size.pdf", "runs.csv")]
    options = [item for pair in zip(("--plot", "--plot-interval", "--plot-size", "--table"), places) for item in pair]
    status, out, _ = run(capsys, "goodput", "quickstart", *FAILING, "--runs", "30", *options)
    assert status == 0 and "work done again" in out and "by Daly" in out and "what to improve first" in out
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("job.png", "interval.svg", "size.pdf"))
    table = pd.read_csv(places[3])
    lost = table[[name for name in table if name.startswith("lost_s.")]].sum(axis=1)
    assert len(table) == 30 and (table["productive_s"] + lost).to_numpy() == pytest.approx(
        table["elapsed_s"].to_numpy()
    )


def test_runs_go_on_where_they_were_interrupted(tmp_path, monkeypatch):
    scenario = llmsim.load_scenario("quickstart", {
        "job.iterations": 20000, "job.failures.job_mtbf": 7200, "job.checkpoint": {"interval": "10 min", "stall": 20},
    })  # fmt: skip
    out = tmp_path / "runs.csv"

    def killed(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llmsim.goodput(scenario, runs=60, what_if=False, out=out, workers=1, progress=killed)
    assert not out.exists() and len((tmp_path / "runs.csv.journal").read_text().splitlines()) == 1
    with pytest.raises(llmsim.LlmsimError, match="go on with --resume"):
        llmsim.goodput(scenario, runs=60, what_if=False, out=out, workers=1)
    resumed = llmsim.goodput(scenario, runs=60, what_if=False, out=out, workers=1, resume=True)
    assert resumed.metrics == llmsim.goodput(scenario, runs=60, what_if=False, workers=1).metrics
    assert len(pd.read_csv(out)) == 60


NEVER = [
    (["job.failures.job_mtbf=100", "job.checkpoint.interval=30 min"], "never gets to its next checkpoint"),
    (["job.failures.job_mtbf=10"], "never gets to its next checkpoint"),
    (["job.failures.gaps=[10 min]", "job.checkpoint.interval=10 min"], "never gets to its next checkpoint"),
    (["job.checkpoint={interval: 10 s, bandwidth: 1 MB/s}"], "that a save stops training"),
    (["job.checkpoint={interval: 60 s, bandwidth: 100 MB/s, mode: async}"], "takes to be written; expected at least"),
    (["job.failures.gpu_mtbf=1e6", "job.spares.repair=never"], "job.spares.nodes: 0 with repair never"),
    (["job.failures.gpu_mtbf=1e3", "job.spares={repair: never, nodes: 3}"], "nodes fail for good"),
    (
        ["faults=[{kind: gpu_down, gpu: node0.gpu1}]", "job.spares.repair=never"],
        "job.spares.nodes: 0 with repair never",
    ),
    (
        ["job.failures={sdc_mtbf: 10 h}", "job.checkpoint={interval: 10 min, stall: 1, keep: 2}"],
        "begins anew each time",
    ),
    (["job.failures={gpu_mtbf: 1e6, job_mtbf: 1e4}"], "counts them again; expected one of both"),
    (["job.failures={preset: ant-2023, gaps: [3 h]}"], "expected no mean times and no preset beside them"),
    (["job.failures.shape=0.7"], "shapes no failures"),
    (["job.failures={gpu_mtbf: 1e6, burn_in: 10}"], "expected job.failures.shape other than 1"),
    (["job.failures.slow_gpu.factor=0.5"], "job.failures.slow_gpu.mtbf: missing"),
    (["job.failures.repeat.share=0.1"], "fail by no part of theirs"),
    (["job.failures.repeat.exclude_after=3"], "excludes nobody"),
    (["job.failures.sdc_found=1 h"], "finds what never happens"),
    (["job.checkpoint.storage_every=3"], "goes with mode memory only"),
    (["job.checkpoint.network=separate"], "changes nothing in mode sync"),
    (["job.checkpoint.keep=3"], "matters for silent corruption only"),
    (["job.elastic={enabled: false, fewest: 2}"], "job.elastic.enabled: false, while other keys say how"),
    (["job.elastic.fewest=100"], "job.elastic.fewest: 100 is more than the"),
    (["job.elastic=true", "parallelism={tp: 8, pp: 1}"], "there is one data-parallel replica"),
    (["job.failures.switch_mtbf=1e6"], "this cluster has no such part"),
    (["job.failures.gaps=nowhere.csv"], "nowhere.csv: there is no such file"),
    (["job.iterations=null", "training.tokens=null"], "job.iterations: missing"),
    (["job.failures.preset=llama"], "did you mean 'llama3-405b'?"),
    (["job.recovery.detect=soon"], "also auto, or {median: 4 min, sigma: 1.2}"),
]


@pytest.mark.parametrize("settings, words", NEVER, ids=[" ".join(settings)[:50] for settings, _ in NEVER])
def test_nonsense_is_one_sentence(capsys, settings, words):
    given = [item for setting in ["job.iterations=20000", *settings] for item in ("--set", setting)]
    status, out, err = run(capsys, "goodput", "quickstart", *given, "--no-what-if")
    assert status == 2 and not out and words in err and len(err.splitlines()) == 1


def test_gaps_of_a_file_lie_beside_the_scenario(tmp_path):
    (tmp_path / "gaps.csv").write_text("hours\n2\n0.5\n")
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "name: mine\nmodel: gpt2\ncluster: {topology: dgx-h100}\ntraining: {seq_len: 1024, global_batch: 64}\n"
        "simulation: {detail: block}\njob: {iterations: 400000, failures: {gaps: gaps.csv}}\n"
    )
    answer = llmsim.goodput(llmsim.load_scenario(mine), runs=10, what_if=False).metrics
    assert answer["mtbf_s"] == 4500.0 and set(answer["failures"]["by_cause"]) == {"job"}
    (tmp_path / "gaps.csv").write_text("hours\n2\n-1\n")
    with pytest.raises(llmsim.LlmsimError, match=r"gaps\.csv:3: no time in its column `hours`"):
        llmsim.goodput(llmsim.load_scenario(mine), runs=10)


def test_plan(capsys, tmp_path):
    arguments = ["plan", "quickstart", "--tokens", "2e9", "--days", "0.2", "--nodes", "1,2,3", "--layout", "scenario"]
    arguments += ["--set", "job.failures.preset=meta-rsc-1", "--runs", "5"]
    status, out, _ = run(capsys, *arguments, "--plot", str(tmp_path / "plan.png"), "--json")
    answer = json.loads(out)
    rows = answer["rows"]
    assert status == 0 and [row["nodes"] for row in rows] == [1, 2, 3] and [row["gpus"] for row in rows] == [8, 16, 24]
    assert rows[1]["days"] < rows[0]["days"] and 0 < rows[0]["goodput"] <= 1
    assert not rows[2]["fits"] and "multiple of micro_batch" in rows[2]["reason"]
    meets = [row["gpus"] for row in rows if row["fits"] and row["days"] <= 0.2]
    assert answer["fewest_gpus"] == (min(meets) if meets else None)
    # The inverse: tokens in those days are in proportion to the time that all take.
    assert rows[0]["tokens_in_time"] == pytest.approx(2e9 * 0.2 / rows[0]["days"], rel=0.01)
    again = llmsim.load_scenario("quickstart", [*rows[1]["set"], "job.failures.preset=meta-rsc-1"])
    assert llmsim.goodput(again, runs=5, what_if=False).metrics["days"]["p50"] == rows[1]["days"]
    assert "fewest GPUs" in run(capsys, *arguments)[1] or meets == []
    assert (tmp_path / "plan.png").stat().st_size > 1000


@pytest.mark.slow
def test_plan_searches_layouts():
    scenario = llmsim.load_scenario("quickstart", {"job.failures.preset": "meta-rsc-1"})
    found = llmsim.plan(scenario, 2e9, days=1.0, nodes=[2], runs=3, workers=1)
    own = llmsim.plan(scenario, 2e9, days=1.0, nodes=[2], runs=3, layout="scenario")
    assert found.rows[0]["iteration_time_s"] <= own.rows[0]["iteration_time_s"] * 1.001
    again = llmsim.load_scenario("quickstart", [*found.rows[0]["set"], "simulation.detail=block"])
    assert llmsim.simulate(again).metrics["iteration_time_s"] == pytest.approx(found.rows[0]["iteration_time_s"])


@pytest.mark.parametrize("arguments, words", [
    (["--tokens", "many"], "--tokens: 'many' cannot be read"),
    (["--tokens", "1e9", "--days", "-1"], "days: -1 is too small"),
    (["--nodes", "none"], "--nodes none: expected two sizes"),
])  # fmt: skip
def test_plans_that_make_no_sense(capsys, arguments, words):
    status, _, err = run(capsys, "plan", "quickstart", *arguments)
    assert status == 2 and words in err


def test_a_plan_without_failures_says_so(capsys):
    _, _, err = run(
        capsys, "plan", "quickstart", "--tokens", "1e9", "--nodes", "1", "--layout", "scenario", "--runs", "1"
    )
    assert "nothing fails in this plan" in err


@pytest.mark.slow
def test_published_jobs_and_closed_forms_hold():
    rows = job_rows()
    assert {row.name for row in rows} == {f"V{number}" for number in range(1, 15)}
    assert [row for row in rows if row.holds is False] == []
    assert {row.name for row in rows if row.holds is None} == {"V7", "V8", "V9", "V10", "V12", "V13", "V14"}


@pytest.mark.slow
def test_llama3s_54_days():
    answer = llmsim.goodput(llmsim.load_scenario("llama3-405b-54-days"), runs=20, what_if=False).metrics
    assert answer["effective_training_time"] > 0.90 and answer["days"]["p50"] == pytest.approx(54.0, rel=0.02)
    unexpected = answer["failures"]["mean"] - answer["failures"]["by_cause"]["planned"]
    assert abs(unexpected - 419) <= 2 * 419**0.5
