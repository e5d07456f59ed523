"""Schedules through the engine: every golden case, and the closed forms where they hold."""

import json

import numpy as np
import pytest
from folders import DATA

import llmsim
from llmsim.errors import ScheduleError
from llmsim.parallel.schedules import evaluate

CASES = json.loads((DATA / "schedule_golden_small.json").read_text())
CASES = CASES["cases"] if isinstance(CASES, dict) else CASES


def name_of(case):
    return {"interleaved-1f1b": "interleaved", "interleaved-grouped": "interleaved", "dualpipev": "dualpipe-v"}.get(
        case["schedule"], case["schedule"]
    )


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['schedule']}-p{c['p']}m{c['m']}v{c['v']}")
def test_golden(case):
    chunks = case["v"] if case["schedule"] != "dualpipe" else 1
    result = llmsim.simulate_schedule(
        name_of(case), case["p"], case["m"], chunks, case["F"], case["B"], case["W"], case["c"], overlap=case["fb"]
    )
    assert result.schedule.digest() == case["order_digest"]
    assert result.makespan_s == pytest.approx(case["makespan"], rel=1e-9)
    assert result.busy_s == pytest.approx(case["per_rank_busy"], rel=1e-9)
    assert result.idle_s == pytest.approx(case["per_rank_idle"], rel=1e-9, abs=1e-9 * case["makespan"])
    assert result.span_bubble_s == pytest.approx(case["max_span_bubble"], rel=1e-9, abs=1e-9 * case["makespan"])
    assert result.peak_activations == case["per_rank_peak"]
    assert result.peak_activations_until_backward == case["per_rank_peak_until_b"]
    for played, expected in zip(result.played, case["timeline"]):
        assert played == pytest.approx(np.array([op[-2:] for op in expected], dtype=float), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["1f1b", "zb-h1", "zb-h2", "interleaved", "zb-v", "dualpipe-v"])
def test_engine_equals_the_evaluator(name):
    chunks = {"interleaved": 4}.get(name)
    result = llmsim.simulate_schedule(name, 8, 32, chunks, 1.0, 1.2, 0.7, comm=0.05)
    oracle = evaluate(result.schedule, 1.0, 1.2, 0.7, 0.05)
    assert result.makespan_s == pytest.approx(oracle.makespan, rel=1e-12)


def test_trace_has_each_op_once():
    trace = llmsim.simulate_schedule("zb-h1", 4, 8).trace
    assert trace.groupby(["rank", "phase"], observed=True).size().unique().tolist() == [8]
    assert set(trace["phase"]) == {"forward", "backward", "weight"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"forward": [1.0, 2.0]}, "forward: 2 times given; expected one number, or one for each of 4"),
        ({"backward": -1.0}, "backward: -1 is no time; times must be finite and 0 or more"),
        ({"comm": -0.1}, "comm: -0.1 is no time"),
        ({"overlap": 0}, "overlap: 0 is not a ratio"),
    ],
)
def test_bad_times_are_one_sentence(arguments, message):
    with pytest.raises(ScheduleError, match=message):
        llmsim.simulate_schedule("1f1b", 4, 8, **arguments)
