"""Kernel times that vary: reproducible, slower on average, and alike folded or not."""

import numpy as np
import pytest

import llmsim
from llmsim.errors import ScenarioError
from llmsim.program.iteration.jitter import _largest

BASE = {
    "name": "jitter",
    "model": {"layers": 4, "hidden": 1024, "heads": 16, "vocab": 32000, "tied_embeddings": False},
    "cluster": {"topology": "dgx-a100", "nodes": 1},
    "training": {"seq_len": 1024, "global_batch": 32, "micro_batch": 1},
    "simulation": {"jitter": 0.1, "seed": 7},
}


def seconds(**values):
    return llmsim.simulate(llmsim.Scenario(**BASE).with_values(values)).metrics["iteration_time_s"]


def test_a_seed_gives_one_answer_and_another_seed_another():
    assert seconds() == seconds()
    assert seconds() != seconds(**{"simulation.seed": 8})


def test_kernels_keep_their_mean():
    scenario = llmsim.Scenario(**BASE).with_values({"cluster.gpus_per_node": 1})
    varied = llmsim.simulate(scenario).trace
    steady = llmsim.simulate(scenario.with_values({"simulation.jitter": 0.0})).trace
    ratio = (varied["end_s"] - varied["start_s"]).sum() / (steady["end_s"] - steady["start_s"]).sum()
    assert ratio == pytest.approx(1.0, abs=0.01)
    one = varied[varied["name"] == "fc1"]
    spread = (one["end_s"] - one["start_s"]).std() / (one["end_s"] - one["start_s"]).mean()
    assert spread == pytest.approx(0.1, rel=0.3)


def test_the_slowest_of_many_sets_the_pace():
    steady = seconds(**{"simulation.jitter": 0.0, "parallelism.tp": 8})
    mild = seconds(**{"simulation.jitter": 0.05, "parallelism.tp": 8})
    strong = seconds(**{"simulation.jitter": 0.2, "parallelism.tp": 8})
    assert steady < mild < strong


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"parallelism.tp": 8}, {"parallelism.tp": 2}, {"parallelism.pp": 2}, {}])
def test_folded_and_unfolded_agree_on_average(layout):
    def slowed(fold):
        times = [seconds(**layout, **{"simulation.fold": fold, "simulation.seed": seed}) for seed in range(8)]
        return np.mean(times) / seconds(**layout, **{"simulation.jitter": 0.0}) - 1

    folded, single = slowed("auto"), slowed("off")
    assert single > 0
    assert folded == pytest.approx(single, rel=0.25, abs=0.007)


def test_the_largest_of_two_and_of_many():
    assert _largest(1) == pytest.approx((0.0, 1.0), abs=0.01)
    assert _largest(2)[0] == pytest.approx(np.pi**-0.5, abs=0.01)
    assert _largest(1000)[0] == pytest.approx(3.241, abs=0.02)


def test_block_detail_has_no_kernels_to_vary():
    with pytest.raises(ScenarioError, match=r"simulation.jitter: .* expected simulation.detail kernel"):
        llmsim.Scenario(**BASE).with_values({"simulation.detail": "block"})
