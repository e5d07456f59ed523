"""Whole scenarios: folding is exact, details agree, seconds and FLOPs and micro-batches are conserved."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmsim
from llmsim.errors import UserError
from llmsim.model.flops import hardware_flops_per_token
from llmsim.plots.memory import memory_levels
from llmsim.program.passes import compiler as blocks

TINY = {"layers": 8, "hidden": 1024, "heads": 16, "vocab": 32000, "position": "rope", "tied_embeddings": False}


def scenario(**sections):
    mapping = {
        "name": "tiny",
        "model": dict(TINY),
        "cluster": {"topology": "dgx-a100", "nodes": 2},
        "parallelism": {"tp": 2, "pp": 2},
        "training": {"seq_len": 512, "global_batch": 32, "micro_batch": 1, "recompute": "none"},
        "simulation": {"detail": "kernel"},
    }
    for key, value in sections.items():
        mapping[key] = {**mapping[key], **value} if isinstance(value, dict) and key in mapping else value
    return llmsim.Scenario(**mapping)


def close(one, other, rel=1e-9):
    for key in ("iteration_time_s", "bubble_fraction", "hardware_tflops_per_gpu"):
        assert one[key] == pytest.approx(other[key], rel=rel, abs=1e-15), key
    for key, value in one["time_breakdown"].items():
        assert value == pytest.approx(other["time_breakdown"][key], rel=rel, abs=rel * one["iteration_time_s"]), key


LAYOUTS = [
    {"tp": 2, "pp": 2},
    {"tp": 4, "pp": 2, "vpp": 2, "schedule": "interleaved"},
    {"tp": 1, "pp": 4, "zero": 1},
    {"tp": 8, "pp": 1},
    {"tp": 1, "pp": 1, "zero": 3},
    {"tp": 2, "pp": 4, "schedule": "zb-h1"},
    {"tp": 2, "pp": 2, "vpp": 2, "schedule": "zb-v"},
]


@st.composite
def faults(draw):
    found = []
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.sampled_from([0.0, 0.001, 0.01]))
        until = draw(st.sampled_from([None, start + 0.005]))
        node, number = draw(st.integers(0, 1)), draw(st.integers(0, 7))
        when = {"factor": draw(st.floats(0.3, 0.95)), "from": start, "until": until}
        if draw(st.booleans()):
            found.append({"kind": "slow_gpu", "gpu": f"node{node}.gpu{number}", **when})
        else:
            found.append({"kind": "slow_link", "link": f"node{node}.nic{number}", **when})
    return found


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(LAYOUTS), faults(), st.sampled_from(["kernel", "block"]))
def test_folded_equals_unfolded(layout, found, detail):
    """One representative per class gives what all ranks give, whatever is slow."""
    parts = {"parallelism": layout, "faults": found}
    folded = llmsim.simulate(scenario(**parts, simulation={"detail": detail}))
    whole = llmsim.simulate(scenario(**parts, simulation={"detail": "kernel" if found else detail, "fold": "off"}))
    if detail == "block" and found:
        whole = llmsim.simulate(scenario(**parts, simulation={"detail": "block", "fold": "off"}))
    close(folded.metrics, whole.metrics)
    assert folded.metrics["simulation"]["classes"] <= whole.metrics["simulation"]["classes"] == 16


def test_a_slow_gpu_splits_only_what_it_touches_and_slows_the_iteration():
    healthy = llmsim.simulate(scenario()).metrics
    slow = llmsim.simulate(scenario(faults=[{"kind": "slow_gpu", "gpu": "node0.gpu1", "factor": 0.5}])).metrics
    assert healthy["simulation"]["classes"] == 2
    assert 2 < slow["simulation"]["classes"] < 16
    assert slow["iteration_time_s"] > 1.1 * healthy["iteration_time_s"]


@pytest.mark.parametrize("layout", [{"tp": 8, "pp": 1}, {"tp": 4, "pp": 1, "zero": 1}])
def test_block_equals_kernel_without_contention(layout):
    """One stage, gradients reduced after the passes: nothing runs beside anything."""
    apart = {"overlap": {"grad_reduce": False, "param_gather": False}}
    results = [
        llmsim.simulate(scenario(parallelism=layout, training=apart, simulation={"detail": detail})).metrics
        for detail in ("kernel", "block")
    ]
    close(*results)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_conservation(layout, recompute):
    run = llmsim.simulate(scenario(parallelism=layout, training={"recompute": recompute}))
    metrics, trace = run.metrics, run.trace
    assert sum(metrics["time_breakdown"].values()) == pytest.approx(metrics["iteration_time_s"], rel=1e-9)
    executed = metrics["hardware_tflops_per_gpu"] * 1e12 * metrics["gpus"] * metrics["iteration_time_s"]
    architecture = run.scenario.resolve().architecture
    per_token = hardware_flops_per_token(architecture, 512, recompute, causal=True)
    assert executed == pytest.approx(per_token * 32 * 512, rel=0.035)  # flash recomputes part of its backward
    assert (trace["flops"] * trace["ranks"]).sum() == pytest.approx(executed, rel=1e-9)
    work = trace[(trace["micro_batch"] >= 0) & (trace["stream"] == "compute")]
    chunks = metrics["layout"]["vpp"]
    for phase in ("forward", "backward"):
        seen = work[work["phase"] == phase][["rank", "chunk", "micro_batch"]].drop_duplicates()
        assert (seen.groupby("rank").size() == chunks * metrics["layout"]["micro_batches"]).all()


def test_streams_are_fifo_and_the_trace_is_deterministic():
    one, two = (llmsim.simulate(scenario(parallelism={"tp": 2, "pp": 4, "zero": 1})).trace for _ in range(2))
    assert one.equals(two)
    for _, rows in one[one["stream"] != "pp_recv"].groupby(["rank", "stream"], observed=True):
        ordered = rows.sort_values(["start_s", "end_s"])
        assert (np.diff(ordered["start_s"]) >= 0).all()
        assert (ordered["start_s"].to_numpy()[1:] >= ordered["end_s"].to_numpy()[:-1] - 1e-12).all()


def test_iterations_are_periodic():
    """The optimizer waits for the whole model, so the second iteration repeats the first."""
    once = llmsim.simulate(scenario(parallelism={"tp": 2, "pp": 4, "zero": 1})).metrics
    twice = llmsim.simulate(scenario(parallelism={"tp": 2, "pp": 4, "zero": 1}, simulation={"iterations": 2})).metrics
    assert twice["iteration_time_s"] == pytest.approx(once["iteration_time_s"], rel=0.01)


@settings(deadline=None, max_examples=10)
@given(st.floats(1.1, 4.0))
def test_more_bandwidth_is_never_slower(factor):
    faster = {"overrides": {"node.nic.bandwidth": 25e9 * factor}}
    base = llmsim.simulate(scenario(training={"overlap": {"grad_reduce": False}}))
    better = llmsim.simulate(scenario(training={"overlap": {"grad_reduce": False}}, cluster=faster))
    assert better.metrics["iteration_time_s"] <= base.metrics["iteration_time_s"] * (1 + 1e-9)


def test_memory_is_part_of_a_result():
    result = llmsim.simulate(scenario())
    memory, frame = result.metrics["memory"], result.memory
    assert memory["fits"] and 0 < memory["peak_gib"] < memory["capacity_gib"]
    fullest = max(memory["per_stage"], key=lambda stage: stage["peak_gib"])
    parts = ("parameters", "gradients", "optimizer", "activations", "temporary", "reserved")
    assert sum(fullest[f"{name}_gib"] for name in parts) == pytest.approx(memory["peak_gib"])
    assert set(frame.columns) == {"rank", "time_s", "allocated_bytes", "category"}
    # The peak is that of the replayed curve, in both details.
    _, levels = memory_levels(frame, int(frame["rank"].iloc[0]))
    assert max(sum(levels.values())) / 2**30 == pytest.approx(memory["per_stage"][0]["peak_gib"])
    coarse = llmsim.simulate(scenario().with_values({"simulation.detail": "block"})).metrics["memory"]
    assert coarse["peak_gib"] == pytest.approx(memory["peak_gib"], rel=1e-9)


def test_a_link_that_never_comes_back_is_the_users_doing():
    """Not a bug: the iteration cannot end, and the sentence says that the faults are why."""
    down = {"kind": "link_down", "link": "node0.nic1", "from": 0.001}
    with pytest.raises(UserError, match="faults: nothing can go on at time"):
        llmsim.simulate(scenario(faults=[down]))
    again = llmsim.simulate(scenario(faults=[{**down, "until": 0.1}])).metrics["iteration_time_s"]
    assert again > llmsim.simulate(scenario()).metrics["iteration_time_s"]
    first = {"kind": "link_down", "link": "node0.nic1", "until": 0.1}
    # Where the second begins before the first ends, the link is never up, and other NICs carry what it would have.
    without = llmsim.simulate(scenario(faults=[{"kind": "link_down", "link": "node0.nic1"}])).metrics
    assert llmsim.simulate(scenario(faults=[first, down])).metrics["iteration_time_s"] == without["iteration_time_s"]
    assert "node0.nic1" not in str(without["network"]["hottest"])
    with pytest.raises(UserError, match=r"faults: the link .* is down"):
        llmsim.simulate(scenario(faults=[{"kind": "link_down", "link": "node0.nic*"}]))


@pytest.mark.parametrize("layout", [{"tp": 2, "sequence_parallel": False}, {"tp": 2, "zero": 3}])
def test_equal_passes_of_many_classes_are_measured_once(monkeypatch, layout):
    measured = []

    def counted(*given):
        measured.append(given)
        return measure(*given)

    measure = blocks.measure
    monkeypatch.setattr(blocks, "measure", counted)
    counts = []
    for fold in ("auto", "off"):
        result = llmsim.simulate(scenario(parallelism=layout, simulation={"detail": "block", "fold": fold}))
        counts.append((len(measured), result.metrics["simulation"]["classes"]))
        measured.clear()
    (folded, classes), (unfolded, ranks) = counts
    assert classes < ranks == 16
    assert folded == unfolded > 0
