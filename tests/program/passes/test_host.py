"""The host that launches kernels: a limit where kernels are short, invisible where they are long."""

import pytest

import llmsim
from llmsim.catalogue.host_constants import HostCost, host_ways
from llmsim.errors import UserError
from llmsim.model.work import Attention, Communication, Gemm, MemoryBound, Step
from llmsim.program.passes.kernel_launch import launch_seconds

SMALL = {
    "name": "small",
    "model": {"layers": 4, "hidden": 512, "heads": 8, "vocab": 8192},
    "cluster": {"topology": "dgx-h100", "nodes": 1, "gpus_per_node": 2},
    "parallelism": {"tp": 2},
    "training": {"seq_len": 512, "global_batch": 8, "micro_batch": 1, "recompute": "none"},
}


def run(**training) -> dict:
    return llmsim.simulate(SMALL | {"training": SMALL["training"] | training}).metrics


def piped(pp: int, nodes: int, **training) -> dict:
    cluster = {"topology": "dgx-h100", "nodes": nodes, "gpus_per_node": 4 // nodes}
    layout = {"tp": 4 // pp, "pp": pp}
    changed = {"cluster": cluster, "parallelism": layout, "training": SMALL["training"] | training}
    return llmsim.simulate(SMALL | changed).metrics


def test_launches_are_counted_by_kind():
    cost = HostCost(kernel=1.0, communication=100.0)
    core = Attention(1, 8, 8, 64, 64, 64, 64)
    steps = [
        Step("gemm", Gemm(8, 8, 8)),
        Step("norms", MemoryBound(1e6, kernels=5)),
        Step("core", core),
        Step("core gradient", Attention(1, 8, 8, 64, 64, 64, 64, backward=True)),
        Step("reduce", Communication("all_reduce", "tp", 1e6), "tp"),
    ]
    assert launch_seconds(steps, cost) == 1 + 5 + 1 + 3 + 100


def test_a_slow_host_sets_the_pace_and_a_fast_one_is_not_seen():
    ahead = run()["iteration_time_s"]
    assert run(host={"kernel": 1e-9})["iteration_time_s"] == pytest.approx(ahead, rel=1e-4)
    slow, slower = (run(host={"kernel": f"{us} us"})["iteration_time_s"] for us in (1000, 2000))
    assert slower == pytest.approx(2 * slow, rel=0.01)  # nothing but launches is left
    assert slow > 10 * ahead


def test_launch_bound_time_is_other_time_and_the_breakdown_adds_up():
    result = run(host={"kernel": "500 us"})
    shares = result["time_breakdown"]
    assert sum(shares.values()) == pytest.approx(result["iteration_time_s"], rel=1e-9)
    assert shares["other"] > 0.8 * result["iteration_time_s"] and shares["bubble"] < 1e-9
    assert result["launch_wait_s"] == pytest.approx(shares["other"], rel=1e-6)
    assert result["bottleneck"] == "compute" and "waiting for kernel launches" in result["bottleneck_reason"]
    assert run()["launch_wait_s"] == 0.0


def test_large_kernels_hide_an_eager_host():
    """A micro-batch of 32 sequences takes the same kernels as one of a single sequence."""
    names = {"global_batch": 64, "micro_batch": 32, "seq_len": 4096}
    assert run(host="eager", **names)["iteration_time_s"] == pytest.approx(run(**names)["iteration_time_s"], rel=0.02)
    names["micro_batch"] = 1
    assert (
        run(host="eager", seq_len=128, global_batch=64)["iteration_time_s"]
        > 1.2 * (run(seq_len=128, global_batch=64)["iteration_time_s"])
    )


@pytest.mark.parametrize("pp", [1, 2])
@pytest.mark.parametrize("pipeline", [True, False])
def test_detail_and_folding_do_not_change_it(pp, pipeline):
    training = {"host": {"kernel": "30 us", "communication": "90 us"}, "overlap": {"pipeline": pipeline}}
    times = set()
    for detail in ("kernel", "block"):
        for fold in ("auto", "off"):
            scenario = SMALL | {
                "cluster": {"topology": "dgx-h100", "nodes": 1, "gpus_per_node": 4},
                "parallelism": {"tp": 2, "pp": pp},
                "training": SMALL["training"] | training,
                "simulation": {"detail": detail, "fold": fold},
            }
            times.add(round(llmsim.simulate(scenario).metrics["iteration_time_s"], 12))
    assert len(times) == 1


def test_stalls_need_a_pipeline_that_crosses_nodes():
    cost = {"kernel": "200 us", "communication": "200 us"}
    plain = {"overlap": {"pipeline": False}, "host": cost}
    stalled = {"overlap": {"pipeline": False}, "host": cost | {"stall": 1.0}}
    inside = [piped(2, 1, **training)["iteration_time_s"] for training in (plain, stalled)]
    across = [piped(2, 2, **training)["iteration_time_s"] for training in (plain, stalled)]
    assert inside[0] == inside[1]
    assert across[1] == pytest.approx(2 * across[0], rel=0.05)  # tp 2: one further rank


def test_ways_to_launch_are_ordered_and_named():
    ways = host_ways()
    assert ways["ahead"].free
    assert ways["graphs"].kernel < ways["compiled"].kernel < ways["eager"].kernel
    with pytest.raises(UserError, match="did you mean 'eager'"):
        run(host="eagr")
    with pytest.raises(UserError, match=r"host\.kernel"):
        run(host={"kernel": "-1 us"})


def test_the_playbooks_launch_bound_run():
    """Ultra-Scale Playbook, its sweep: 9.49 s an iteration with tp 8, 4.6 s with tp 4."""
    path = "scenarios/launch-bound-1b-h100-16.yaml"
    times = {
        tp: llmsim.simulate(llmsim.load_scenario(path, [f"parallelism.tp={tp}", "simulation.detail=block"])).metrics
        for tp in (4, 8)
    }
    assert times[8]["iteration_time_s"] == pytest.approx(9.49, rel=0.08)
    assert times[4]["iteration_time_s"] == pytest.approx(4.6, rel=0.10)
    assert times[8]["launch_wait_s"] > 0.5 * times[8]["iteration_time_s"]
