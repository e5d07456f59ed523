"""Scaling against ideal, and what a budget of GPU days is worth."""

import json

import pytest
from click.testing import CliRunner

import llmsim
from llmsim.cli import cli
from llmsim.economics.budget import budget_flops, choice, choices
from llmsim.economics.chinchilla import law, published_optima
from llmsim.errors import UserError
from llmsim.studies.sweep.scale import scale, verdict

SLOW = "scenarios/slow-network.yaml"


def test_strong_scaling_of_a_slow_network_breaks_for_its_network():
    table = scale(llmsim.load_scenario(SLOW), [1, 2, 4, 8], workers=1)
    assert table["efficiency"].iloc[0] == 1.0
    assert table["efficiency"].dropna().is_monotonic_decreasing
    assert (table["training.global_batch"].nunique() if "training.global_batch" in table else 1) == 1
    assert "data parallel communication" in verdict(table)


def test_weak_scaling_keeps_the_work_of_each_gpu():
    table = scale(llmsim.load_scenario(SLOW), [2, 4, 8], "weak", workers=1)
    assert table["training.global_batch"].tolist() == [64, 128, 256]
    assert table["time_breakdown.compute"].max() == pytest.approx(table["time_breakdown.compute"].min(), rel=0.02)


def test_sizes_that_do_not_run_are_rows_with_a_reason():
    table = scale(llmsim.load_scenario(SLOW), [4, 64], workers=1)
    assert table["status"].tolist()[1] == "invalid" and table["reason"].iloc[1]
    assert "Beyond that" in verdict(table) or "breaks" in verdict(table)
    with pytest.raises(UserError, match="mode: 'sideways'"):
        scale(llmsim.load_scenario(SLOW), [1], "sideways")


def test_the_replication_reproduces_the_papers_table():
    for parameters, tokens, flops in published_optima():
        best, data = law("besiroglu2024").optimum(flops)
        assert best == pytest.approx(parameters, rel=0.4)
        assert data == pytest.approx(tokens, rel=0.5)


def test_the_optimum_has_the_least_loss_of_its_budget():
    fit, flops = law(), budget_flops(30, 1024, 140e12)
    best, *smaller = choices(fit, flops)
    assert best.excess_loss == pytest.approx(0.0, abs=1e-12)
    assert choice(fit, flops, 1.1 * best.parameters).loss > best.loss
    assert [each.loss for each in smaller] == sorted(each.loss for each in smaller)
    assert all(6 * each.parameters * each.tokens == pytest.approx(flops) for each in (best, *smaller))


def test_the_commands_print_documents():
    run = CliRunner().invoke(cli, ["budget", SLOW, "--days", "7", "--json"])
    document = json.loads(run.stdout)
    assert set(document["laws"]) == {"besiroglu2024", "hoffmann2022_rounded"}
    assert document["gpu_hours"] == pytest.approx(7 * 24 * 32)
    run = CliRunner().invoke(cli, ["scale", SLOW, "--nodes", "1..4", "--mode", "strong", "--workers", "1", "--json"])
    assert [row["cluster.nodes"] for row in json.loads(run.stdout)["runs"]] == [1, 2, 4]
    assert CliRunner().invoke(cli, ["scale", SLOW, "--nodes", "4..1"]).exit_code != 0
