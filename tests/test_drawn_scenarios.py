"""What must be true of every scenario, over scenarios drawn from all options."""

import math

import numpy as np
import pytest
from drawn_scenarios import scenarios, seeded, simulated
from hypothesis import HealthCheck, assume, given, settings

from llmsim.analysis.breakdown import trace_breakdown
from llmsim.analysis.bubbles import bubble_summary
from llmsim.analysis.utilization import stage_utilization
from llmsim.files import read_trace
from llmsim.studies.explain.critical import critical_path, on_path

drawn = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,  # the same scenarios in every run, so that a change is told by what it breaks
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def leaves(value, path=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{number}")
    else:
        yield path, value


def same_numbers(one: dict, other: dict, rel: float) -> None:
    scale = one["iteration_time_s"]
    for (path, a), (_, b) in zip(leaves(one), leaves(other), strict=True):
        if path.startswith(".simulation") or isinstance(a, str):
            continue
        assert a == pytest.approx(b, rel=rel, abs=1e-12 * scale), path


@drawn
@given(scenarios())
def test_ledgers_add_up_and_shares_are_shares(scenario):
    for detail in ("kernel", "block"):
        result = simulated(scenario, detail=detail)
        assume(result)
        metrics = result.metrics
        seconds = metrics["iteration_time_s"]
        assert 0 < seconds < math.inf
        assert sum(metrics["time_breakdown"].values()) == pytest.approx(seconds, rel=1e-9)
        for path, value in leaves(metrics):
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert math.isfinite(value), path
                assert value >= -1e-12 * seconds, path
            if path.endswith(("fraction", "mfu", "hfu")) or ".overlap." in path:
                assert value <= 1 + 1e-9, path


@drawn
@given(scenarios())
def test_pictures_of_a_trace_show_the_ledger_of_its_run(scenario):
    """In both details: seconds by part, bubbles, utilisation over the last iteration, the critical path's length."""
    for detail in ("kernel", "block"):
        result = simulated(scenario, detail=detail, jitter=0.0)
        assume(result)
        seconds, ledger = result.metrics["iteration_time_s"], result.metrics["time_breakdown"]
        assert trace_breakdown(result.trace) == pytest.approx(ledger, rel=1e-9, abs=1e-9 * seconds)
        for name, share in bubble_summary(result.trace).items():
            assert share == pytest.approx(result.metrics[name], abs=1e-9), name
        end = result.trace["end_s"].max()
        table = stage_utilization(result.trace, 64, (end - seconds, end))
        stages = np.bincount(result.program.stage_of, weights=result.program.classes.count)
        shown = {name: np.average(table.groupby("stage")[name].mean(), weights=stages) for name in table.columns[3:]}
        talking = sum(ledger[name] for name in ledger if name.startswith("exposed_")) + ledger["offload"]
        assert shown["computing"] == pytest.approx((ledger["compute"] + ledger["optimizer"]) / seconds, abs=1e-9)
        assert shown["communicating"] == pytest.approx(talking / seconds, abs=1e-9)
        assert sum(on_path(critical_path(result.trace)).values()) == pytest.approx(end, rel=1e-6)


def test_a_saved_trace_keeps_its_ledger(tmp_path):
    """Blocks, sends that block their sender, two lanes that compute at once."""
    lanes = set()
    for number, drawn in enumerate(seeded(6, 60)):
        result = simulated(drawn, detail="block", jitter=0.0)
        if result is None:
            continue
        path = tmp_path / f"{number}.csv"
        result.trace.to_csv(path, index=False)
        ledger = result.metrics["time_breakdown"]
        assert trace_breakdown(read_trace(str(path))) == pytest.approx(ledger, abs=1e-9 * sum(ledger.values()))
        lanes |= set(result.trace["lane"])
    assert {"compute", "beside", "pp_send", "dp", "offload", "host", "launch"} <= lanes


@drawn
@given(scenarios())
def test_folding_changes_nothing(scenario):
    assume(not scenario["simulation"]["jitter"])
    for detail in ("kernel", "block"):
        folded, unfolded = (simulated(scenario, detail=detail, fold=fold) for fold in ("auto", "off"))
        assume(folded)
        same_numbers(folded.metrics, unfolded.metrics, rel=1e-7)


@drawn
@given(scenarios())
def test_blocks_are_close_to_kernels(scenario):
    kernel, block = (simulated(scenario, detail=detail) for detail in ("kernel", "block"))
    assume(kernel)
    assume(not scenario["simulation"]["jitter"])  # noise of blocks is drawn for blocks
    assert block.metrics["iteration_time_s"] == pytest.approx(kernel.metrics["iteration_time_s"], rel=0.05)


@drawn
@given(scenarios())
def test_blocks_say_how_much_communication_their_kernels_hide(scenario):
    kernel, block = (simulated(scenario, detail=detail, jitter=0.0, iterations=1) for detail in ("kernel", "block"))
    assume(kernel)
    assume(not scenario["faults"] and "background" not in scenario)
    assert block.metrics["overlap"].keys() == kernel.metrics["overlap"].keys()
    for group in {"tp", "cp", "ep"} & kernel.metrics["overlap"].keys():
        # What contends inside a pass and outside of it meets otherwise in blocks.
        assert block.metrics["overlap"][group] == pytest.approx(kernel.metrics["overlap"][group], abs=0.1), group


SPLIT = ("zb-h1", "zb-h2", "zb-auto", "zb-v", "zb-v-torch", "dualpipe", "dualpipe-v")
# The first virtual stage has the embedding alone, whose backward for its input does nothing.
EMBEDDING_ALONE = {
    "name": "embedding alone",
    "model": {"layers": 4, "hidden": 512, "heads": 8, "vocab": 32000, "position": "rope"},
    "cluster": {"topology": "dgx-h100", "nodes": 1, "gpus_per_node": 2},
    "parallelism": {"pp": 2, "vpp": 2, "schedule": "zb-v", "stage_layers": [0, 2, 1, 1]},
    "training": {"seq_len": 256, "micro_batch": 1, "global_batch": 8},
    "simulation": {"iterations": 2},
}


@drawn
@given(scenarios())
def test_what_passes_hold_is_never_negative_and_gone_at_the_end(scenario):
    check_activations(scenario)


def test_halves_of_backwards_leave_nothing_behind():
    some = [drawn for drawn in seeded(5, 300) if drawn["parallelism"]["schedule"] in SPLIT]
    assert len(some) > 20
    for scenario in some:
        check_activations(scenario)


def test_an_embedding_alone_hands_on_what_its_weight_gradients_free():
    assert simulated(EMBEDDING_ALONE)
    check_activations(EMBEDDING_ALONE)


def check_activations(scenario) -> None:
    result = simulated(scenario)
    if result is None:
        return
    frame = result.memory
    for (rank, category), rows in frame.groupby(["rank", "category"], observed=True):
        held = rows["allocated_bytes"].to_numpy()
        rounding = 1e-9 * held.max() + 1.0
        assert held.min() >= -rounding, (rank, category)
        if category in ("activations", "temporary"):
            assert held[-1] == pytest.approx(0.0, abs=rounding), (rank, category)
    for stage in result.metrics["memory"]["per_stage"]:
        assert all(value >= 0 for name, value in stage.items() if name.endswith("_gib")), stage
