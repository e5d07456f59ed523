"""Explanations name the bottleneck that a scenario was built to have, and recommend what helps."""

import json

import pytest
from click.testing import CliRunner

import llmsim
from llmsim.cli import cli
from llmsim.program.what_if import FREE, WhatIf
from llmsim.studies.explain.critical import critical_path, on_path


@pytest.mark.parametrize(
    ("name", "word", "remedy"),
    [
        ("data-bound", "data", "data on local disks"),
        ("memory-bound", "memory", "flash attention"),
        ("slow-network", "communication", "a network twice as fast"),
        ("quickstart", "compute", None),
    ],
)
def test_shipped_scenarios_have_the_bottleneck_that_they_were_built_for(name, word, remedy):
    found = llmsim.explain(llmsim.load_scenario(f"scenarios/{name}.yaml"))
    assert found.bottleneck == word
    assert found.result.metrics["bottleneck"] == word, "`run` and `explain` agree"
    if remedy:
        assert found.changes[0].name == remedy
    gains = [change.gain for change in found.changes]
    assert gains == sorted(gains, reverse=True)
    json.dumps(found.record(), default=float)


def test_a_change_gives_what_it_promises():
    scenario = llmsim.load_scenario("scenarios/slow-network.yaml", {"simulation.detail": "block"})
    change = llmsim.explain(scenario).changes[0]
    again = llmsim.simulate(scenario.with_values(change.settings)).metrics
    assert again["iteration_time_s"] == change.iteration_time_s
    now = llmsim.simulate(scenario).metrics
    assert again["tokens_per_s"] / now["tokens_per_s"] - 1 == pytest.approx(change.gain)


def test_the_critical_path_is_one_chain_from_start_to_end():
    result = llmsim.simulate(llmsim.load_scenario("scenarios/bubble-study.yaml", {"simulation.detail": "block"}))
    path = critical_path(result.trace)
    assert path["end_s"].iloc[-1] == result.trace["end_s"].max()
    starts, ends = path["start_s"].to_numpy(), path["end_s"].to_numpy()
    assert (starts[1:] >= ends[:-1] - 1e-9 * ends[-1]).all()
    # Its ops and the gaps between them are the whole time.
    assert sum(on_path(path).values()) == pytest.approx(ends[-1], rel=1e-6)


def test_free_communication_leaves_computation_alone():
    scenario = llmsim.load_scenario("scenarios/slow-network.yaml", {"simulation.detail": "block"})
    what_if = WhatIf(inside=FREE, between=FREE, latency=FREE, interference=False)
    free = llmsim.simulate(scenario, what_if=what_if).metrics
    assert free["time_breakdown"]["exposed_dp"] < 0.01 * free["iteration_time_s"]
    assert free["time_breakdown"]["compute"] == pytest.approx(
        llmsim.simulate(scenario).metrics["time_breakdown"]["compute"], rel=0.05
    )


def test_the_command_prints_a_document_or_a_page():
    document = CliRunner().invoke(cli, ["explain", "scenarios/data-bound.yaml", "--json"])
    assert json.loads(document.stdout)["bottleneck"] == "data"
    page = CliRunner().invoke(cli, ["explain", "scenarios/data-bound.yaml"]).stdout
    assert "bottleneck: data" in page and "--set data.storage=nvme" in page
