"""What must be true of every scenario, over scenarios drawn from all options."""

import math

import numpy as np
import pytest
from drawn_scenarios import scenarios, simulated
from hypothesis import HealthCheck, assume, given, settings

from llmsim.analysis.utilization import stage_utilization

drawn = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
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
def test_the_utilisation_picture_shows_the_ledger(scenario):
    for detail in ("kernel", "block"):
        # One iteration from time 0: several, a loader or jitter have no single window that both look at.
        result = simulated(scenario | {"data": {}}, detail=detail, iterations=1, jitter=0.0)
        assume(result)
        seconds, breakdown = result.metrics["iteration_time_s"], result.metrics["time_breakdown"]
        table = stage_utilization(result.trace, 64, (0.0, seconds))
        computing = float(np.average(table["computing"]))
        assert computing == pytest.approx((breakdown["compute"] + breakdown["optimizer"]) / seconds, abs=1e-6)


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
