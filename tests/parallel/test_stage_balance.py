"""`stage_layers: balanced`: the slowest stage is as fast as any split makes it, and the iteration with it."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmsim
from llmsim.errors import ScenarioError
from llmsim.parallel.stages import balance_layers
from llmsim.program.physics import physics_of
from llmsim.program.setup import Setup

COST = st.integers(1, 12).map(lambda n: n / 4)


def stage_times(counts, costs, first, last):
    ends = [sum(counts[: k + 1]) for k in range(len(counts))]
    times = [sum(costs[begin:end]) for begin, end in pairwise([0, *ends])]
    times[0] += first
    times[-1] += last
    return times


@settings(max_examples=60, deadline=None)
@given(st.lists(COST, min_size=1, max_size=9), st.integers(1, 4), COST, COST)
def test_no_split_has_a_faster_slowest_stage(costs, stages, first, last):
    stages = min(stages, len(costs))
    found = balance_layers(tuple(costs), stages, first, last)
    assert (len(found), sum(found), min(found) >= 1) == (stages, len(costs), True)
    cuts = combinations(range(1, len(costs)), stages - 1)
    every = [[b - a for a, b in pairwise([0, *cut, len(costs)])] for cut in cuts]
    best = min(max(stage_times(counts, costs, first, last)) for counts in every)
    assert max(stage_times(found, costs, first, last)) == pytest.approx(best)


def test_alike_layers_without_edges_are_shared_out_evenly():
    assert balance_layers((1.0,) * 8, 4) == (2, 2, 2, 2)
    assert sorted(balance_layers((1.0,) * 10, 4)) == [2, 2, 3, 3]
    assert sum(balance_layers((1.0,) * 3, 5)) == 3


SCENARIO = {
    "name": "large-vocabulary",
    "model": "llama3-8b",
    "cluster": {"topology": "dgx-h100", "nodes": 1},
    "parallelism": {"pp": 4, "tp": 2},
    "training": {"seq_len": 4096, "global_batch": 32},
    "simulation": {"detail": "block"},
}


def run(**parallelism):
    scenario = llmsim.Scenario(**SCENARIO | {"parallelism": SCENARIO["parallelism"] | parallelism})
    return llmsim.simulate(scenario)


def test_a_large_vocabulary_takes_layers_from_the_last_stage():
    even, balanced = run(), run(stage_layers="balanced")
    assert balanced.metrics["iteration_time_s"] < 0.97 * even.metrics["iteration_time_s"]
    assert balanced.metrics["bubble_fraction"] < even.metrics["bubble_fraction"]
    assert balanced.metrics["model_tflops_per_gpu"] > even.metrics["model_tflops_per_gpu"]


@pytest.mark.parametrize("split", [[8, 8, 8, 8], [9, 8, 8, 7], [8, 9, 8, 7], [9, 9, 9, 5], [7, 8, 9, 8]])
def test_no_given_split_is_faster(split):
    best = run(stage_layers="balanced").metrics["iteration_time_s"]
    assert best <= run(stage_layers=split).metrics["iteration_time_s"] * 1.002


def test_layers_that_do_not_divide_are_balanced_too():
    assert run(pp=8, tp=1, stage_layers="balanced", schedule="interleaved", vpp=3).metrics["iteration_time_s"] > 0


def test_of_more_stages_than_layers_the_ends_have_none():
    """The embedding and the head are work too; nothing is faster than the same split by hand."""
    by_hand = [0, *[1] * 32, *[0] * 7]
    shared = {"pp": 8, "tp": 1, "vpp": 5, "schedule": "interleaved"}
    balanced, given = (run(**shared, stage_layers=split) for split in ("balanced", by_hand))
    counts = [sum(part.role == "layer" for part in stage.parts) for stage in balanced.program.stages]
    assert sum(counts) == 32 and max(counts) == 1 and counts[-1] == 0
    assert balanced.metrics["iteration_time_s"] <= given.metrics["iteration_time_s"] * 1.002


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "dualpipe", "dualpipe-v"])
@pytest.mark.parametrize("zero", [0, 3])
def test_a_rank_without_layers_passes_on_what_it_gets(schedule, zero):
    """Detail makes no difference, and every layer is played once."""
    counts = [0, 20, 0, 12] if schedule != "dualpipe-v" else [0, 20, 0, 12, 0, 0, 0, 0]
    choices = {"pp": 4, "schedule": schedule, "vpp": len(counts) // 4, "zero": zero, "stage_layers": counts}
    scenario = llmsim.Scenario(**SCENARIO | {"parallelism": SCENARIO["parallelism"] | choices})
    block, kernel = (
        llmsim.simulate(scenario.with_values({"simulation.detail": detail, "training.global_batch": 8})).metrics
        for detail in ("block", "kernel")
    )
    assert block["iteration_time_s"] == pytest.approx(kernel["iteration_time_s"], rel=0.02)
    assert block["hardware_tflops_per_gpu"] * block["iteration_time_s"] == pytest.approx(
        kernel["hardware_tflops_per_gpu"] * kernel["iteration_time_s"]
    )


def test_recomputing_a_few_layers_of_each_stage_balances_as_recomputing_all():
    """Which layers are recomputed follows from the cut; the first ones of the model are no dearer than the others."""

    def counts(recompute):
        parallelism = SCENARIO["parallelism"] | {"stage_layers": "balanced"}
        training = SCENARIO["training"] | {"recompute": recompute}
        scenario = llmsim.Scenario(**SCENARIO | {"parallelism": parallelism, "training": training})
        stages = Setup(scenario, physics_of(scenario)).stages
        return [sum(part.role == "layer" for part in stage.parts) for stage in stages]

    assert counts({"mode": "full", "layers": 4}) == counts("full")


def test_no_pipeline_rank_is_left_without_layers():
    with pytest.raises(ScenarioError, match=r"'balanced' has 2 layers of .* for pp 4 pipeline ranks"):
        llmsim.Scenario(
            name="t", model={"layers": 2, "hidden": 512, "heads": 8, "vocab": 32000},
            cluster={"topology": "dgx-a100"}, parallelism={"pp": 4, "stage_layers": "balanced"},
            training={"seq_len": 512, "global_batch": 8},
        )  # fmt: skip
