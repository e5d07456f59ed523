"""Scenarios that do not fit: the shortfall adds up, and what is advised does fit when it is run."""

import json

import pytest

from llmsim.cli import main
from llmsim.scenario import Scenario
from llmsim.simulation import simulate
from llmsim.studies.remedies import Remedy, remedies, shortfalls


def scenario(**training):
    return Scenario(
        name="too-large",
        model="llama2-7b",
        cluster={"topology": "dgx-a100-40", "nodes": 1},
        parallelism={"tp": 2},
        training={"seq_len": 4096, "global_batch": 32, "micro_batch": 2, "recompute": "none", **training},
        simulation={"detail": "block"},
    )


def test_shortfall_names_stage_category_and_amount():
    memory = simulate(scenario()).metrics["memory"]
    (missing,) = shortfalls(memory)
    stage = max(memory["per_stage"], key=lambda entry: entry["peak_gib"])
    assert missing.missing_gib == pytest.approx(memory["peak_gib"] - memory["capacity_gib"]) and missing.missing_gib > 0
    assert (missing.place, missing.number, missing.peak_gib) == ("gpu", stage["stage"], memory["peak_gib"])
    assert missing.category_gib == max(v for k, v in stage.items() if k not in ("stage", "peak_gib"))
    assert f"{missing.missing_gib:.1f} GiB more than" in str(missing)


def test_what_is_advised_fits_and_costs_what_is_said():
    start = scenario()
    now = simulate(start).metrics
    found = remedies(start)
    assert len(found) == 3
    assert [each.gpu_time for each in found] == sorted(each.gpu_time for each in found)
    for each in found:
        metrics = simulate(start.with_values(each.settings)).metrics
        assert metrics["memory"]["fits"]
        assert metrics["iteration_time_s"] == each.iteration_time_s
        assert each.slowdown == pytest.approx(metrics["iteration_time_s"] / now["iteration_time_s"] - 1)


def test_nothing_is_advised_where_nothing_is_missing():
    fitting = scenario(recompute="full", micro_batch=1).with_values({"parallelism.zero": 3})
    assert shortfalls(simulate(fitting).metrics["memory"]) == []
    assert remedies(fitting) == []


def test_one_change_keeps_the_number_of_gpus():
    mixtral = Scenario(
        name="mixtral",
        model="mixtral-8x7b",
        cluster={"topology": "dgx-h100", "nodes": 1},
        parallelism={"ep": 8, "zero": 1},
        training={"seq_len": 4096, "global_batch": 64, "micro_batch": 2, "recompute": "none"},
    )
    found = remedies(mixtral)
    assert any("cluster.nodes" not in each.settings for each in found)
    assert any("cluster.nodes" in each.settings for each in found)


def test_modules_are_printed_as_options_to_paste():
    modules = {"training.recompute": {"mode": "selective", "modules": ["layernorm", "moe_act"]}}
    text = Remedy(modules, 1.0, 1.0, 0.0, 0.0).text
    assert text == "--set 'training.recompute={mode: selective, modules: [layernorm, moe_act]}'"


@pytest.mark.slow
def test_several_changes_together_where_no_single_one_is_enough():
    found = remedies(scenario().with_values({"model": "llama2-13b", "parallelism.tp": 1}))
    assert found and all(len([v for v in each.settings.values() if v is not None]) >= 2 for each in found)


def test_run_says_what_would_fit(tmp_path, capsys):
    path = tmp_path / "scenario.json"
    body = dict(name="t", model="gpt2-xl", cluster={"topology": "dgx-a100-40"},
                training=dict(seq_len=1024, global_batch=64, micro_batch=8, attention="unfused"))  # fmt: skip
    path.write_text(json.dumps(body))

    def run(*options):
        with pytest.raises(SystemExit) as stopped:
            main(["run", str(path), "--detail", "block", *options])
        return stopped.value.code, capsys.readouterr().out

    status, screen = run()
    assert status == 0 and "does not fit" in screen and "  1. " in screen
    status, document = run("--json", "--advise", "--require-fit")
    changes = json.loads(document)["memory"]["changes"]
    assert status == 1 and changes
    assert all({"settings", "slowdown", "gpu_time", "peak_gib"} <= set(each) for each in changes)
    assert f"--set {next(iter(changes[0]['settings']))}" in screen
