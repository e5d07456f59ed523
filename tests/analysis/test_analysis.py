"""Bubbles and utilisation against closed forms and by hand, on traces played from the schedules' definitions."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_traces import (
    block_trace,
    gpipe,
    interleaved,
    kernel_trace,
    one_f_one_b,
    play,
    zb_h1,
)

from llmsim.analysis.breakdown import trace_breakdown
from llmsim.analysis.bubbles import bubble_summary, bubble_table, pipeline_tasks
from llmsim.analysis.intervals import coverage, gaps, subtract, union
from llmsim.analysis.utilization import stage_utilization, stream_utilization


@pytest.mark.parametrize("order", [gpipe, one_f_one_b])
@pytest.mark.parametrize(("p", "m"), [(1, 3), (2, 2), (4, 8), (8, 3)])
def test_bubble_of_gpipe_and_1f1b_is_the_papers(order, p, m):
    """GPipe: (p-1)/(m+p-1) of the span; Megatron: (p-1)/m of the ideal time. All stages alike."""
    table = bubble_table(block_trace(play(order(p, m)), tail=3.0, update=1.0, sends=0.1))
    assert list(table["stage"]) == list(range(p))
    np.testing.assert_allclose(table["bubble_fraction"], (p - 1) / (m + p - 1), rtol=1e-12)
    np.testing.assert_allclose(table["bubble_over_ideal"], (p - 1) / m, rtol=1e-12)
    np.testing.assert_allclose(table["window_s"], 3 * (m + p - 1), rtol=1e-12)


def test_peaks_in_flight():
    """Activations: m for GPipe, min(m, p - r) for 1F1B, min(m, p) until W and min(m, p - r) until B for ZB-H1."""
    p, m = 4, 8
    assert set(bubble_table(block_trace(play(gpipe(p, m))))["peak_in_flight"]) == {m}
    assert list(bubble_table(block_trace(play(one_f_one_b(p, m))))["peak_in_flight"]) == [4, 3, 2, 1]
    split = bubble_table(block_trace(play(zb_h1(p, m))))
    assert list(split["peak_in_flight"]) == [4, 4, 4, 4]
    assert list(split["peak_until_backward"]) == [4, 3, 2, 1]


def test_interleaving_divides_the_bubble_by_chunks():
    p, m, v = 4, 8, 2
    times = {"F": 1 / v, "BW": 2 / v}
    summary = bubble_summary(block_trace(play(interleaved(p, m, v), v, times)))
    assert summary["bubble_over_ideal"] == pytest.approx((p - 1) / (v * m), rel=1e-12)


def test_zero_bubble_h1():
    """Makespan m(F+B+W) + (p-1)(F+B-min(F,B,W)), m >= p."""
    table = bubble_table(block_trace(play(zb_h1(4, 8))))
    np.testing.assert_allclose(table["wait_s"], 3 * (1 + 1 - 1), rtol=1e-12)


def test_tasks_of_a_split_backward_are_b_and_w_and_of_a_fused_one_bw():
    split = pipeline_tasks(block_trace(play(zb_h1(2, 3))))
    assert split["kind"].value_counts().to_dict() == {"F": 6, "B": 6, "W": 6}
    fused = pipeline_tasks(block_trace(play(one_f_one_b(2, 3))))
    assert fused["kind"].value_counts().to_dict() == {"F": 6, "BW": 6}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("order", "v"), [(one_f_one_b, 1), (zb_h1, 1), (interleaved, 2)])
def test_kernel_trace_has_the_same_tasks_as_the_block_trace(order, v, recompute):
    rows = play(order(4, 4, v) if v > 1 else order(4, 4), v)
    block, kernel = (
        pipeline_tasks(block_trace(rows)),
        pipeline_tasks(kernel_trace(rows, 3, recompute=recompute)),
    )
    columns = ["rank", "kind", "chunk", "micro_batch", "iteration"]
    pd.testing.assert_frame_equal(block[columns], kernel[columns])
    np.testing.assert_allclose(kernel[["start_s", "end_s"]], block[["start_s", "end_s"]], rtol=1e-12)
    assert (kernel["recompute_s"] > 0).any() == recompute


def test_tasks_survive_shuffled_rows_and_categories():
    trace = kernel_trace(play(zb_h1(3, 5)), 2)
    expected = pipeline_tasks(trace)
    shuffled = trace.sample(frac=1, random_state=1).astype({"stream": "category", "phase": "category"})
    pd.testing.assert_frame_equal(pipeline_tasks(shuffled), expected)


def test_iterations_have_windows_of_their_own():
    one = block_trace(play(one_f_one_b(2, 4)))
    two = one.assign(iteration=1, start_s=one["start_s"] + 100, end_s=one["end_s"] + 100)
    table = bubble_table(pd.concat([one, two], ignore_index=True))
    assert list(table["iteration"]) == [0, 0, 1, 1]
    np.testing.assert_allclose(table["bubble_fraction"], 1 / 5, rtol=1e-12)


def test_stage_mean_is_weighted_by_the_ranks_each_stands_for():
    trace = block_trace(play(one_f_one_b(2, 4)), ranks=3)
    fast = trace[trace["stage"] == 0].copy()
    fast["rank"], fast["ranks"], fast["end_s"] = 1, 1, (fast["start_s"] + fast["end_s"]) / 2
    table = bubble_table(pd.concat([trace, fast], ignore_index=True))
    assert table["busy_s"].iloc[0] == pytest.approx((3 * 12 + 1 * 6) / 4)
    assert table["ranks"].iloc[0] == 4


def test_a_trace_without_pipeline_has_no_bubble():
    trace = block_trace(play(one_f_one_b(2, 2)), update=1.0)
    assert bubble_summary(trace[trace["phase"] == "update"]) == {
        "bubble_fraction": 0.0,
        "bubble_over_ideal": 0.0,
    }
    assert pipeline_tasks(trace.iloc[:0]).empty


def test_a_million_rows_take_less_than_a_second():
    rows = play(one_f_one_b(16, 128))
    trace = kernel_trace(rows, 4)
    trace = pd.concat([trace.assign(iteration=i) for i in range(1 + 1_000_000 // len(trace))], ignore_index=True)
    assert len(trace) >= 1_000_000
    started = time.process_time()
    tasks = pipeline_tasks(trace)
    assert time.process_time() - started < 2.0  # 0.4 s on an idle core; the margin is for busy machines
    assert len(tasks) == len(rows) * trace["iteration"].nunique()


intervals = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=12)


def as_arrays(pairs):
    start = np.array([a for a, _ in pairs], dtype=float)
    return start, start + np.array([b for _, b in pairs], dtype=float)


def cells(start, end):
    return {t for a, b in zip(start, end) for t in range(int(a), int(b))}


@settings(max_examples=60, deadline=None)
@given(intervals, intervals)
def test_interval_arithmetic_equals_sets(one, other):
    one, other = as_arrays(one), as_arrays(other)
    a, b = union(*one), union(*other)
    assert cells(*a) == cells(*one)
    assert (a[0][1:] > a[1][:-1]).all(), "disjoint, and touching ones merged"
    assert cells(*subtract(*a, *b)) == cells(*one) - cells(*other)
    assert cells(*gaps(*a, 0, 60)) == set(range(60)) - cells(*one)
    edges = np.arange(0, 61, 4.0)
    by_bin = [len(cells(*one) & set(range(int(low), int(low) + 4))) for low in edges[:-1]]
    np.testing.assert_allclose(coverage(*a, edges), by_bin, atol=1e-12)


def test_shares_add_up_and_hidden_communication_does_not_count():
    rows = [(0, "F", 0, 0, 0.0, 4.0), (0, "BW", 0, 0, 6.0, 10.0)]
    trace = block_trace(rows, sends=1.0)  # sends at 4..5 (nothing hides it) and 10..11
    idle = stage_utilization(trace, bins=11)["idle"]  # the sender itself waits for neither
    np.testing.assert_allclose(idle, [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1], atol=1e-12)
    trace = trace.assign(lane="compute")  # now it does
    table = stage_utilization(trace, bins=11)
    np.testing.assert_allclose(table[["computing", "communicating", "idle"]].sum(axis=1), 1.0)
    np.testing.assert_allclose(table["computing"], [1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(table["communicating"], [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1], atol=1e-12)
    under = trace.assign(
        start_s=trace["start_s"].where(trace["kind"] != "p2p", 2.0), end_s=trace["end_s"].clip(upper=10)
    )
    shown = stage_utilization(under, bins=1)["communicating"].iloc[0]
    assert shown == pytest.approx(0.2)  # both run 2..10, nothing computes in 4..6


def test_utilization_equals_busy_time():
    p, m = 4, 6
    table = stage_utilization(block_trace(play(gpipe(p, m))), bins=7)
    np.testing.assert_allclose(table.groupby("stage")["computing"].mean(), m / (m + p - 1))
    assert stage_utilization(block_trace(play(gpipe(1, 1))).iloc[:0]).empty


def test_stream_utilization():
    table = stream_utilization(block_trace(play(gpipe(2, 2)), tail=3.0)).set_index(["stage", "stream"])
    assert table.loc[(0, "compute"), "busy_s"] == 6.0
    assert table.loc[(1, "dp"), "share"] == pytest.approx(4.5 / 12)


@pytest.mark.parametrize("layout", [{"tp": 2, "pp": 2}, {"tp": 4, "pp": 1, "zero": 1}, {"tp": 1, "pp": 4}])
def test_the_breakdown_of_a_trace_is_that_of_the_result(layout):
    """Two ways to it: the ledger of lanes, and interval arithmetic on nothing but the trace's rows."""
    import llmsim

    run = llmsim.simulate(llmsim.load_scenario("scenarios/quickstart.yaml").with_values({"parallelism": layout}))
    ours, theirs = trace_breakdown(run.trace), run.metrics["time_breakdown"]
    assert sum(ours.values()) == pytest.approx(run.metrics["iteration_time_s"], rel=1e-9)
    for part in ("compute", "exposed_tp", "optimizer"):
        assert ours[part] == pytest.approx(theirs[part], rel=1e-9)
    for part in ("bubble", "exposed_dp", "exposed_pp", "other"):  # they draw the line between waits differently
        assert ours[part] == pytest.approx(theirs[part], abs=0.01 * run.metrics["iteration_time_s"])
