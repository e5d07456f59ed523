"""Every schedule in a scenario: real kernels, who holds what, what overlaps, and what a blocking send costs."""

import pytest

import llmsim
from llmsim.intervals import union

BASE = {
    "name": "pipeline",
    "model": "llama2-7b",
    "cluster": {"topology": "dgx-h100", "nodes": 1},
    "training": {"seq_len": 2048, "global_batch": 16, "recompute": "none"},
}
CHUNKS = {"interleaved": 2, "looped-bfs": 2, "zb-v": 2, "dualpipe-v": 2}
NAMES = ["gpipe", "1f1b", "interleaved", "looped-bfs", "zb-h1", "zb-h2", "zb-v", "zb-auto", "dualpipe", "dualpipe-v"]


def run(schedule, tp=2, detail="block", **training):
    parallelism = {"pp": 4, "tp": tp, "vpp": CHUNKS.get(schedule, 1), "schedule": schedule}
    changed = {"parallelism": parallelism, "training": BASE["training"] | training, "simulation": {"detail": detail}}
    return llmsim.simulate(llmsim.Scenario(**BASE | changed))


@pytest.fixture(scope="module")
def results():
    return {name: run(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_micro_batch_passes_every_chunk_once(results, name):
    trace = results[name].trace
    passes = trace[(trace["kind"] == "compute") & (trace["micro_batch"] >= 0)]
    per_rank = CHUNKS.get(name, 1)
    for phase in ("forward", "backward"):
        own = passes[passes["phase"] == phase]
        seen = own.groupby("stage", observed=True).apply(
            lambda rows: len(set(zip(rows["micro_batch"], rows["chunk"]))), include_groups=False
        )
        assert seen.tolist() == [16 * per_rank] * 4


@pytest.mark.parametrize("name", NAMES)
def test_splitting_and_overlapping_change_no_arithmetic(results, name):
    flops = (results[name].trace["flops"] * results[name].trace["ranks"]).sum()
    plain = (results["1f1b"].trace["flops"] * results["1f1b"].trace["ranks"]).sum()
    assert flops == pytest.approx(plain, rel=1e-9)


def test_published_order_of_the_schedules_with_real_kernels(results):
    seconds = {name: results[name].metrics["iteration_time_s"] for name in NAMES}
    bubble = {name: results[name].metrics["bubble_fraction"] for name in NAMES}
    assert seconds["1f1b"] == pytest.approx(seconds["gpipe"], rel=0.02)
    assert seconds["zb-h1"] < seconds["1f1b"]
    assert bubble["interleaved"] < bubble["1f1b"]
    assert bubble["zb-v"] < bubble["zb-h1"] < bubble["1f1b"]


def test_a_v_puts_embedding_and_head_on_the_first_rank(results):
    held = [stage["parameters_gib"] for stage in results["zb-v"].metrics["memory"]["per_stage"]]
    line = [stage["parameters_gib"] for stage in results["1f1b"].metrics["memory"]["per_stage"]]
    assert held[0] - held[1] == pytest.approx(line[0] + line[3] - 2 * line[1], rel=1e-6)
    assert held[1:] == pytest.approx([held[1]] * 3)
    both = [stage["parameters_gib"] for stage in results["dualpipe"].metrics["memory"]["per_stage"]]
    assert sum(both) == pytest.approx(2 * sum(line))


def computing(result):
    """(seconds of all kernels, seconds in which any of them runs), summed over ranks."""
    trace = result.trace[result.trace["kind"] == "compute"]
    spans = [union(rows["start_s"].to_numpy(), rows["end_s"].to_numpy()) for _, rows in trace.groupby("rank")]
    return (trace["end_s"] - trace["start_s"]).sum(), sum((ends - starts).sum() for starts, ends in spans)


def test_the_halves_of_a_block_share_the_gpu_and_hide_communication():
    beside, plain = (run(name, tp=1, detail="kernel") for name in ("dualpipe", "1f1b"))
    assert computing(beside)[0] > 1.1 * computing(plain)[0]  # stretched where two of them run
    assert computing(beside)[1] == pytest.approx(computing(plain)[1], rel=0.02)  # but the work stays what it is
    beside, plain = (run(name, tp=2, detail="kernel").metrics for name in ("dualpipe", "1f1b"))
    assert beside["overlap"]["tp"] > plain["overlap"]["tp"] + 0.1
    assert beside["time_breakdown"]["exposed_tp"] < 0.9 * plain["time_breakdown"]["exposed_tp"]


def test_a_blocking_send_is_never_faster():
    for name in ("1f1b", "interleaved", "zb-h1"):
        free = run(name).metrics["iteration_time_s"]
        blocking = run(name, overlap={"pipeline": False}).metrics["iteration_time_s"]
        assert blocking > free
