"""Bounds are bounds, and the search finds what simulating everything would find."""

import json
import random
import shlex
from itertools import pairwise

import pytest
from click.testing import CliRunner

import llmsim
from llmsim.cli import cli
from llmsim.errors import UserError
from llmsim.searching.bounds import bound
from llmsim.searching.space import candidates, default_space
from llmsim.sweeping.outcome import run_point

OPEN = {"parallelism.dp": None, "parallelism.stage_layers": None, "simulation.detail": "block"}
SMALL_SPACE = {
    "parallelism.schedule": ["1f1b", "interleaved"],
    "training.micro_batch": [1, 2],
    "training.recompute": ["none", "full"],
    "parallelism.zero": [0, 1],
    "parallelism.cp": 1,
    "training.overlap": [{"grad_reduce": True}],
    "parallelism.vpp": [1, 2],
    "parallelism.tp": [1, 4, 8],
}


def opened(name):
    return llmsim.load_scenario(f"scenarios/{name}.yaml", OPEN)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart", "mixtral-8x7b-h100-64", "llama3-8b-fsdp-h100-8"])
def test_no_simulation_beats_its_bounds(name):
    scenario, checked = opened(name), 0
    points = list(candidates(scenario, default_space(scenario)))
    for point in random.Random(7).sample(points, 30):
        row = run_point(scenario, point)
        assert row["status"] != "failed", (point, row["reason"])
        if row["status"] != "invalid":
            least = bound(scenario.with_values(point))
            assert least.seconds <= row["iteration_time_s"], point
            assert least.bytes <= row["memory.peak_gib"] * 2**30, point
            checked += 1
    assert checked > 15


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["time", "memory"])
def test_the_pruned_search_finds_the_optimum_of_all(objective):
    scenario = opened("quickstart")
    found = llmsim.search(scenario, SMALL_SPACE, objective, top=3, workers=1)
    everything = [run_point(scenario, layout.point) for layout in found.layouts]
    name = {"time": "iteration_time_s", "memory": "memory.peak_gib"}[objective]
    expected = sorted(row[name] for row in everything if row["status"] == "ok")[:3]
    assert [layout.row[name] for layout in found.best] == pytest.approx(expected, rel=1e-12)
    assert found.counts["simulated"] < len(found.layouts)


def test_the_front_falls_in_memory_as_it_grows_in_time():
    found = llmsim.search(opened("quickstart"), SMALL_SPACE, top=1, workers=1)
    front = [(layout.seconds, layout.peak_gib) for layout in found.front]
    assert front == sorted(front) and len(front) > 1
    assert all(after[1] < before[1] for before, after in pairwise(front))
    assert front[0][0] == found.best[0].seconds
    table = found.table
    assert len(table) == found.counts["valid"] and (table["why"] != "").all()


def test_selective_recomputation_is_a_layout_of_its_own_only_with_scores_in_memory():
    space = {"training.recompute": ["none", "selective", "full"]}
    for attention, expected in (("flash", ["none", "full"]), ("unfused", ["none", "selective", "full"])):
        scenario = opened("quickstart").with_values({"training.attention": attention})
        assert [point["training.recompute"] for point in candidates(scenario, space)] == expected
    assert list(candidates(opened("quickstart"), {"training.recompute": ["selective"]}))


def test_mistakes_are_one_sentence():
    with pytest.raises(UserError, match="objective: 'speed' is not known"):
        llmsim.search(opened("quickstart"), objective="speed")
    with pytest.raises(UserError, match="no layout of the space is valid"):
        llmsim.search(opened("quickstart"), {"parallelism.tp": 3}, workers=1)


def test_the_command_ranks_and_draws(tmp_path):
    space = [part for key, value in SMALL_SPACE.items() for part in ("--space", f"{key}={json.dumps(value)}")]
    arguments = ["search", "scenarios/quickstart.yaml", *space, "--workers", "1", "--top", "2"]
    page = CliRunner().invoke(cli, [*arguments, "--plot", str(tmp_path / "layouts.png")])
    assert page.exit_code == 0 and "valid layouts" in page.stdout, page.output
    assert (tmp_path / "layouts.png").stat().st_size > 10_000
    command = shlex.split(page.stdout.rpartition("To run the best: llmsim ")[2])
    assert "parallelism.schedule=1f1b" not in command, "what the scenario says already is not repeated"
    assert CliRunner().invoke(cli, [*command, "--json", "--require-fit"]).exit_code == 0
    document = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert [layout["rank"] for layout in document["layouts"]] == [1, 2]
    assert document["layouts"][1]["why"].startswith("+")
