"""Bounds are bounds, and the search finds what simulating everything would find."""

import json
import random
import shlex
from itertools import pairwise

import pytest
from click.testing import CliRunner
from drawn_scenarios import seeded, simulated

import llmsim
from llmsim.cli import cli
from llmsim.cli.layout_columns import columns
from llmsim.errors import UserError
from llmsim.parallel.schedules import schedule
from llmsim.parallel.schedules.order import peaks
from llmsim.scenario.overrides import parse_override
from llmsim.studies.search.bounds import bound
from llmsim.studies.search.space import candidates, default_space
from llmsim.studies.sweep.outcome import run_point

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


# -- bounds and space over drawn scenarios -----------------------------------------------------------------------------


@pytest.mark.slow
def test_bounds_are_below_whatever_is_drawn():
    """All schedules, zero, ep, recomputation, offloading, chunks, faults and data; stages even, uneven and empty."""
    chance = random.Random(3)
    for drawn in seeded(17, 120):
        split = drawn["parallelism"]
        if split["pp"] > 1 and chance.random() < 0.5:
            counts = [0] * (split["pp"] * split["vpp"])
            for _ in range(drawn["model"]["layers"]):
                counts[chance.randrange(len(counts))] += 1
            drawn = {**drawn, "parallelism": {**split, "stage_layers": counts}}
        result = simulated(drawn, detail="block", iterations=1)
        if result is None:
            continue
        least = bound(result.scenario)
        assert least.seconds <= result.metrics["iteration_time_s"] * (1 + 1e-12), drawn
        assert least.bytes <= result.metrics["memory"]["peak_gib"] * 2**30 * (1 + 1e-12), drawn


SMALL = {
    "name": "small",
    "model": {"layers": 7, "hidden": 1024, "heads": 8, "vocab": 32000},
    "cluster": {"topology": "dgx-a100", "nodes": 1, "gpus_per_node": 4},
    "training": {"seq_len": 1024, "global_batch": 16},
}
FEW = {"training.micro_batch": 1, "parallelism.cp": 1, "training.recompute": "none"}
EXPERTS = {"experts": 4, "top_k": 2, "expert_ffn_hidden": 1024}


@pytest.mark.slow
@pytest.mark.parametrize("model", [SMALL["model"], SMALL["model"] | {"moe": EXPERTS, "layers": 4}])
def test_the_search_equals_an_exhaustive_one(model):
    """Seven layers are shared by no pipeline evenly; with experts DualPipe is searched too."""
    scenario = llmsim.Scenario(**SMALL | {"model": model})
    found = llmsim.search(scenario, FEW, top=4, workers=1)
    rows = [run_point(scenario.with_values({"parallelism.dp": None}), each.point) for each in found.layouts]
    expected = sorted(row["iteration_time_s"] for row in rows if row["status"] == "ok")[:4]
    assert [each.seconds for each in found.best] == pytest.approx(expected, rel=1e-12)
    schedules = {each.point["parallelism.schedule"] for each in found.layouts}
    assert {"1f1b", "interleaved", "zb-h1", "zb-v"} <= schedules
    assert ("dualpipe" in schedules) == ("moe" in model)
    uneven = any(each.point["parallelism.stage_layers"] == "balanced" for each in found.layouts)
    assert uneven == (model["layers"] == 7)
    for each in found.best:
        again = llmsim.simulate(scenario.with_values(dict(map(parse_override, each.set)))).metrics
        assert (again["iteration_time_s"], again["memory"]["peak_gib"]) == (each.seconds, each.peak_gib)


def test_no_two_rows_look_alike():
    space = FEW | {"training.overlap": [{"grad_reduce": True}, {"grad_reduce": False}, {"tp": True}]}
    found = llmsim.search(llmsim.Scenario(**SMALL), space | {"parallelism.pp": [1, 4]}, top=50, workers=1)
    cells, same = columns([each.point for each in found.best])
    rows = list(zip(*cells.values()))
    assert len(set(rows)) == len(rows) > 10 and same["mb"] == "1" and "overlap" in cells


def test_offloading_is_not_confused_with_what_does_not_fit():
    """Both choices in one search have the bounds that each has alone."""
    choices = [{"optimizer": "none"}, {"optimizer": "cpu"}]
    space = FEW | {"parallelism.pp": 1, "parallelism.tp": 1, "parallelism.zero": 1}

    def bytes_of(wanted):
        found = llmsim.search(llmsim.Scenario(**SMALL), space | {"training.offload": wanted}, workers=1)
        return [each.bound.bytes for each in found.layouts]

    assert bytes_of(choices) == bytes_of(choices[:1]) + bytes_of(choices[1:])


@pytest.mark.parametrize("name", ["1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe", "dualpipe-v", "gpipe"])
def test_many_micro_batches_keep_no_less_in_flight_than_a_few(name):
    """Bounds look at four micro-batches a stage in place of all."""
    chunks = {"interleaved": 2, "zb-v": 2, "dualpipe-v": 2}.get(name, 1)
    few, many = (peaks(schedule(name, 4, count, chunks).orders) for count in (16, 48))
    assert all(a <= b for a, b in zip(few, many))
