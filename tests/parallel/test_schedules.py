"""Pipeline schedules against 164 worked cases, closed forms and published rates; tables; zb-auto."""

import json
import time
from collections import Counter
from math import floor

import numpy as np
import pytest
from folders import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.errors import ScheduleError
from llmsim.parallel.schedules import check_schedule, default_chunks, evaluate, needs_times, schedule, schedules
from llmsim.parallel.schedules.order import Schedule, loop_placement, parts
from llmsim.parallel.schedules.table import read_table, write_table

GOLDEN = json.loads((DATA / "schedule_golden_small.json").read_text())["cases"]
DURATION = st.integers(1, 16).map(lambda n: n / 8)
SMALL = st.integers(1, 6)


def play(name, p, m, v=None, times=(1.0, 1.0, 1.0), comm=0.0, fb=1.0):
    return evaluate(schedule(name, p, m, v), *times, comm, fb)


# -- worked cases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["case_id"])
def test_worked_case(case):
    found = schedule(case["schedule"], case["p"], case["m"], case["v"])
    assert found.digest() == case["order_digest"]
    assert found.split_backward == case["split_backward"]
    assert (found.virtual_stages, found.directions) == (case["n_stages"], case["n_dirs"])
    assert [[d, s, found.rank_of(d, s)] for d, s, _ in case["place"]] == case["place"]
    played = evaluate(found, case["F"], case["B"], case["W"], case["c"], case["fb"])
    for rank, rows in enumerate(case["timeline"]):
        assert [list(op) for op in found.orders[rank]] == [row[:-2] for row in rows]
        np.testing.assert_allclose(played.start[rank], [row[-2] for row in rows], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(played.end[rank], [row[-1] for row in rows], rtol=1e-9, atol=1e-9)
    scale = case["makespan"]
    assert played.makespan == pytest.approx(case["makespan"], rel=1e-9)
    assert played.busy == pytest.approx(case["per_rank_busy"], rel=1e-9)
    assert played.idle == pytest.approx(case["per_rank_idle"], abs=1e-9 * scale)
    assert played.span.max() == pytest.approx(case["max_span"], rel=1e-9)
    assert played.span_bubble == pytest.approx(case["max_span_bubble"], abs=1e-9 * scale)
    assert played.peaks == case["per_rank_peak"]
    assert played.peaks_until_backward == case["per_rank_peak_until_b"]


# -- published rates ---------------------------------------------------------------------------------------

# Qi et al. 2024 (Zero Bubble Pipeline Parallelism, ICLR): p, m and the profiled F, B, W and transfer times in us
# (the paper's Table 9, also in the authors' public code), then bubble rates of 1F1B, ZB-H1, ZB-H2 (Table 5).
ZERO_BUBBLE = [
    (8, 24, 18522, 18086, 9337, 601, 0.2431, 0.1585, 0.1083),
    (8, 32, 18513, 18086, 9331, 626, 0.1985, 0.1242, 0.0837),
    (8, 64, 18546, 18097, 9321, 762, 0.1240, 0.0674, 0.0444),
    (8, 24, 29718, 29444, 19927, 527, 0.2347, 0.1323, 0.0698),
    (8, 32, 29802, 29428, 19530, 577, 0.1898, 0.1045, 0.0559),
    (8, 64, 29935, 29621, 19388, 535, 0.1091, 0.0554, 0.0294),
    (16, 48, 11347, 11248, 8132, 377, 0.2552, 0.1397, 0.0672),
    (16, 64, 11307, 11254, 8101, 379, 0.2082, 0.1088, 0.0516),
    (16, 128, 11325, 11308, 8109, 378, 0.1251, 0.0576, 0.0266),
    (32, 96, 10419, 10207, 7715, 408, 0.2646, 0.1421, 0.0641),
    (32, 128, 10408, 10204, 7703, 408, 0.2168, 0.1106, 0.0490),
    (32, 256, 10402, 10248, 7698, 460, 0.1352, 0.0594, 0.0257),
]


def span_rate(played, ideal):
    """The paper's bubble rate: (longest span - m (F + B + W)) over the longest span."""
    return (played.span.max() - ideal) / played.span.max()


@pytest.mark.parametrize("setting", ZERO_BUBBLE, ids=lambda s: f"p{s[0]}m{s[1]}")
def test_zero_bubble_table_5(setting):
    p, m, *times, comm = setting[:6]
    rates = [span_rate(play(name, p, m, times=times, comm=comm), m * sum(times)) for name in ("1f1b", "zb-h1", "zb-h2")]
    assert [round(rate, 4) for rate in rates] == list(setting[6:])


# -- closed forms ------------------------------------------------------------------------------------------


@given(SMALL, st.integers(1, 20), DURATION, DURATION, DURATION, st.integers(0, 40).map(lambda n: n / 8))
def test_gpipe_and_1f1b_makespan(p, m, f, b, w, c):
    times = (f, b, w)
    for name in ("gpipe", "gpipe-lifo"):
        assert play(name, p, m, times=times, comm=c).makespan == pytest.approx(
            (m + p - 1) * sum(times) + 2 * (p - 1) * c
        )
    transfers = 2 * c * (m + p - 3 - floor((m - 2) / p)) if p > 1 else 0
    assert play("1f1b", p, m, times=times, comm=c).makespan == pytest.approx((m + p - 1) * sum(times) + transfers)


@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 4), DURATION, DURATION, DURATION, st.floats(0, 1))
def test_interleaved_makespan(p, rounds, v, f, b, w, share):
    m, c = p * rounds, share * min(f, b + w)
    expected = (v * m + p - 1) * (f + b + w) + 2 * (v * p - 1) * c
    assert play("interleaved", p, m, v, (f, b, w), c).makespan == pytest.approx(expected)


@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), DURATION, DURATION)
def test_interleaved_in_equal_groups(p, rounds, group_over, v, f, bw):
    m = rounds * (p + group_over - 1)
    if m // p != rounds:
        return
    assert play("interleaved", p, m, v, (f, bw, 0)).makespan == pytest.approx((v * m + p - 1) * (f + bw))


@given(st.integers(2, 6), st.integers(1, 12), st.integers(1, 4), DURATION, DURATION, DURATION, DURATION)
def test_looped_bfs_makespan(p, m, v, f, b, w, c):
    expected = sum((v - 1) * max(m * x, p * (x + c)) + (m + p - 1) * x + (p - 1) * c for x in (f, b + w))
    assert play("looped-bfs", p, m, v, (f, b, w), c).makespan == pytest.approx(expected)


@given(SMALL, st.integers(0, 12), DURATION, DURATION, DURATION)
def test_zero_bubble_forms(p, extra, f, b, w):
    one = f + b + w
    m = p + extra
    h1 = play("zb-h1", p, m, times=(f, b, w))
    assert h1.makespan == pytest.approx(m * one + (p - 1) * (f + b - min(f, b, w)))
    m = 2 * p + extra
    h1, h2 = (play(name, p, m, times=(f, b, w)) for name in ("zb-h1", "zb-h2"))
    assert h1.span_bubble == pytest.approx((p - 1) * (f + b - min(f, w)))
    assert h2.makespan == pytest.approx(m * one + (p - 1) * max(f, f + b - 2 * min(f, w)))
    assert h2.span_bubble == pytest.approx((p - 1) * max(0, f + b - 2 * min(f, w)), abs=1e-9)


@given(SMALL, st.integers(0, 12), DURATION, DURATION, DURATION)
def test_zb_v_span_bubble(p, extra, x, y, z):
    w, f, b = sorted((x, y, z))
    m = 2 * p - 1 + extra
    assert play("zb-v", p, m, times=(f, b, w)).span_bubble == pytest.approx(2 * (p - 1) * (b - w), abs=1e-9)
    assert play("zb-v", p, m).makespan == pytest.approx(2 * m * 3 + p - 1)


@given(st.integers(1, 4), st.integers(0, 6), DURATION, DURATION)
def test_dualpipe_bubble(half, extra, one, other):
    w, f = sorted((one, other))
    bubble = 2 * f + w + f + w - 3 * w  # F&B + full backward - 3 W with F = B >= W
    p = 2 * half
    both = play("dualpipe", p, 2 * p + 2 * extra, times=(f, f, w))
    assert both.makespan - both.busy.max() == pytest.approx((p / 2 - 1) * bubble, abs=1e-9)
    folded = play("dualpipe-v", half, 2 * half + extra, times=(f, f, w))
    assert folded.span_bubble == pytest.approx((half - 1) * bubble, abs=1e-9)


def test_dualpipe_has_the_width_of_the_published_figure():
    assert play("dualpipe", 8, 20).makespan == 66


@given(st.integers(1, 8), st.integers(1, 29), st.integers(1, 4))
def test_peaks(p, m, v):
    ranks = range(p)
    assert play("gpipe", p, m).peaks == [m] * p
    assert play("1f1b", p, m).peaks == [min(m, p - r) for r in ranks]
    assert play("looped-bfs", p, m, v).peaks == [m * v] * p
    assert play("zb-h1", p, m).peaks == [min(m, p)] * p
    assert play("zb-h1", p, m).peaks_until_backward == [min(m, p - r) for r in ranks]
    assert play("zb-h2", p, m).peaks == [min(m, 2 * p - 1)] * p
    assert play("zb-h2", p, m).peaks_until_backward == [min(m, 2 * (p - r) - 1) for r in ranks]
    if m >= 2 * p - 1:
        assert play("zb-v", p, m).peaks == [2 * p] * p
    if m >= 2 * p:
        assert play("dualpipe-v", p, m).peaks == [2 * p + 1] * p
        if p % 2 == m % 2 == 0:
            assert play("dualpipe", p, m).peaks == [p + 1] * p
    rounds = max(1, m // p)
    if m % rounds == 0:
        group = m // rounds
        expected = [min(m * v, (v - 1) * group + 2 * (p - 1 - r) + 1) for r in ranks]
        assert play("interleaved", p, m, v).peaks == expected


# -- what holds for every schedule -------------------------------------------------------------------------


def runnable(name, p, m, v):
    try:
        check_schedule(name, p, m, v)
    except ScheduleError:
        return False
    return True


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 14), st.integers(1, 4), st.data())
def test_every_op_once_in_a_playable_order(p, m, v, data):
    for name in schedules():
        if not runnable(name, p, m, v):
            continue
        found = schedule(name, p, m, v)
        assert (found.stages, found.micro_batches) == (p, m)
        count = Counter()
        for rank, ops in enumerate(found.orders):
            for op in ops:
                for kind, d, s, i in parts(op):
                    assert found.rank_of(d, s) == rank
                    count.update((letter, d, s, i) for letter in kind)
        each = m // found.directions
        grid = [(d, s, i) for d in range(found.directions) for s in range(found.virtual_stages) for i in range(each)]
        assert count == Counter((kind, *where) for kind in "FBW" for where in grid)
        times = data.draw(st.lists(DURATION, min_size=found.virtual_stages, max_size=found.virtual_stages))
        played = evaluate(found, times, times, times[::-1], 0.25)
        ready = {}
        for ops, ends in zip(found.orders, played.end):
            for op, end in zip(ops, ends):
                ready.update({(letter, d, s, i): end for kind, d, s, i in parts(op) for letter in kind})
        for ops, starts, ends in zip(found.orders, played.start, played.end):
            assert (starts[1:] >= ends[:-1]).all()
            for op, start in zip(ops, starts):
                for part, crosses in found.dependencies(op):
                    assert start >= ready[part] + (0.25 if crosses else 0)


def test_chunks_are_counted_along_the_forward_pass():
    assert [schedule("interleaved", 2, 4, 3).chunk_of(0, s) for s in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [schedule("zb-v", 2, 4).chunk_of(0, s) for s in range(4)] == [0, 0, 1, 1]
    both = schedule("dualpipe", 2, 4)
    assert [[both.chunk_of(d, s) for s in range(2)] for d in range(2)] == [[0, 0], [1, 1]]
    assert (both.chunks, both.parameter_copies, both.overlapped) == (1, 2, True)


@pytest.mark.parametrize(("name", "chunks"), [("interleaved", 4), ("looped-bfs", 4), ("zb-v", 2), ("dualpipe", 1)])
def test_large_pipelines_are_fast(name, chunks):
    begin = time.process_time()
    found = schedule(name, 32, 128, chunks)
    played = evaluate(found, 1.0, 1.0, 1.0, 0.1)
    assert time.process_time() - begin < 1.0
    assert played.busy == pytest.approx([128 * found.virtual_stages * 3 / 32] * 32)


# -- deadlocks and mistakes --------------------------------------------------------------------------------


def test_deadlock_names_the_first_blocked_op_of_each_rank():
    orders = (
        (("F", 0, 0, 0), ("BW", 0, 0, 0), ("F", 0, 0, 1), ("BW", 0, 0, 1)),
        (("F", 0, 1, 1), ("BW", 0, 1, 1), ("F", 0, 1, 0), ("BW", 0, 1, 0)),
    )
    stuck = Schedule("mine", 2, 2, orders, loop_placement(2))
    with pytest.raises(ScheduleError) as error:
        evaluate(stuck, 1.0, 1.0, 1.0)
    assert str(error.value) == (
        "schedule 'mine' deadlocks; waiting: rank 0 at op 1, BW of stage 0, micro-batch 0, for B of stage 1, "
        "micro-batch 0 (op 3 of rank 1); rank 1 at op 0, F of stage 1, micro-batch 1, for F of stage 0, "
        "micro-batch 1 (op 2 of rank 0)"
    )


def test_deadlock_leaves_out_ranks_that_are_done():
    orders = ((("F", 0, 0, 0), ("W", 0, 0, 0), ("B", 0, 0, 0)), (("F", 0, 1, 0), ("BW", 0, 1, 0)))
    with pytest.raises(ScheduleError) as error:
        evaluate(Schedule("mine", 2, 1, orders, loop_placement(2)), 1.0, 1.0, 1.0)
    assert str(error.value) == (
        "schedule 'mine' deadlocks; waiting: rank 0 at op 1, W of stage 0, micro-batch 0, for B of stage 0, "
        "micro-batch 0 (op 2 of rank 0)"
    )


def test_interleaving_says_which_numbers_of_micro_batches_would_do():
    with pytest.raises(ScheduleError) as error:
        schedule("interleaved", 3, 7, 2)
    assert str(error.value) == (
        "interleaved cannot order 7 micro-batches over 3 stages: they do not split into 2 equal groups; expected a "
        "multiple of the stages, such as 6 or 9"
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("dualpipe", 3, 8), "even number of stages; 3 is odd, expected 4"),
        (("dualpipe", 4, 9), "even number of micro-batches"),
        (("dualpipe", 4, 6), "6 over 4 stages is too few, expected at least 8"),
        (("dualpipe-v", 4, 7), "7 over 4 stages is too few, expected at least 8"),
        (("zb-v", 4, 8, 3), "chunks: 3 does not fit schedule 'zb-v'; expected 2"),
        (("zb-v", 4, 8, 1), "chunks: 1 does not fit schedule 'zb-v'; expected 2"),
        (
            ("1f1b", 4, 8, 2),
            "chunks: 2 does not fit schedule '1f1b'; expected 1; interleaved and looped-bfs take",
        ),
        (("interleaved", 4, 9, 2), "9 micro-batches over 4 stages: they do not split into 2 equal groups"),
        (("1f1b", 0, 8), "stages: 0 is not possible; expected a whole number of at least 1"),
        (("1f1b", 4, 2.5), "micro_batches: 2.5 is not possible"),
        (("1f1b", 4), "micro_batches is missing"),
        (("zb_h1", 4, 8), "did you mean 'zb-h1'?"),
        (("nowhere/mine.csv",), "nowhere/mine.csv: there is no such file; expected a schedule table"),
    ],
    ids=str,
)
def test_mistakes(arguments, part):
    with pytest.raises(ScheduleError) as error:
        schedule(*arguments)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_options_and_times_are_checked():
    with pytest.raises(ScheduleError, match="takes no option 'memory_limit'; its order is fixed"):
        schedule("1f1b", 4, 8, memory_limit=4)
    with pytest.raises(ScheduleError, match="takes no option 'memory'; expected one of forward, "):
        schedule("zb-auto", 4, 8, memory=4)
    with pytest.raises(ScheduleError, match="backward: 3 times given; expected one number, or one for each of 4"):
        play("1f1b", 4, 8, times=(1.0, [1.0] * 3, 1.0))
    with pytest.raises(ScheduleError, match="weight: -1 is no time; times must be finite and 0 or more"):
        play("1f1b", 2, 8, times=(1.0, 1.0, -1.0))


def test_the_registry_answers_for_every_name():
    assert all(default_chunks(name) in (1, 2) and about for name, about in schedules().items())
    assert [name for name in schedules() if needs_times(name)] == ["zb-auto"]
    assert schedule("interleaved-1f1b", 4, 8) == schedule("interleaved", 4, 8, 2)
    assert schedule("dualpipev", 4, 8) == schedule("dualpipe-v", 4, 8, 2)
    assert schedule("dualpipe", 4, 8, 2) == schedule("dualpipe", 4, 8, 1)


# -- tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("name", ["1f1b", "interleaved", "zb-v", "dualpipe", "dualpipe-v"])
def test_tables_round_trip(tmp_path, name, suffix):
    written = schedule(name, 4, 8)
    path = tmp_path / f"mine{suffix}"
    write_table(written, path)
    found = schedule(path, 4, 8)
    assert (found.name, found.orders, found.placement) == ("mine", written.orders, written.placement)
    assert (found.parameter_copies, found.micro_batches) == (written.parameter_copies, 8)
    with pytest.raises(ScheduleError, match=r"micro_batches: 9 is asked for; the table '.*' holds 8"):
        schedule(str(path), micro_batches=9)


def test_table_rows_may_come_in_any_order(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("# by hand\nposition,rank,kind,stage,micro_batch\n1,0,BW,0,0\n\n0,0,F,0,0\n")
    assert read_table(path).orders == ((("F", 0, 0, 0), ("BW", 0, 0, 0)),)


HEAD = "rank,kind,stage,micro_batch\n"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "line 1: column 'rank' is missing"),
        ("rank,kind,stage,microbatch\n", "line 1: column 'microbatch' is not known; expected rank"),
        (HEAD, "the table holds no op"),
        (HEAD + "0,G,0,0\n", "line 2: 'G' is not a kind of op; expected F, B, W, BW, FB"),
        (HEAD + "0,F,0,-1\n", "line 2: micro_batch is '-1'; expected a whole number"),
        (HEAD + "0,F,0,0,7\n", "line 2: 5 values for 4 columns"),
        (HEAD + "0,FB,0,0\n", "line 2: stage_b is ''"),
        (HEAD + "0,F,0,0\n0,F,0,0\n", "line 3: F of stage 0, micro-batch 0 is done already at"),
        (HEAD + "0,F,0,0\n0,BW,0,0\n0,W,0,0\n", "line 4: W of stage 0, micro-batch 0 is done already"),
        (HEAD + "0,F,0,0\n1,BW,0,0\n", "line 3: stage 0 is on rank 1 here and on rank 0 at"),
        (HEAD + "0,F,0,0\n0,B,0,0\n", "W of stage 0, micro-batch 0 is missing"),
        (HEAD + "1,F,0,0\n1,BW,0,0\n", "rank 0 has no op; expected ranks 0 to 1 without a gap"),
        (
            HEAD + "0,BW,0,0\n0,F,0,0\n",
            "deadlocks; waiting: rank 0 at op 0, BW of stage 0, micro-batch 0, for F of",
        ),
        ("position," + HEAD + "0,0,F,0,0\n0,0,BW,0,0\n", "line 3: position 0 of rank 0 is taken already"),
        (HEAD + "0,F,0,99999999999\n", "F of stage 0, micro-batch 0 is missing"),
        (HEAD + "99999999999,F,0,0\n99999999999,BW,0,0\n", "rank 0 has no op"),
    ],
)
def test_table_mistakes(tmp_path, text, part):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ScheduleError) as error:
        read_table(path)
    assert part in str(error.value)
    assert "mine.csv" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{\n]", ":2: this is not JSON"),
        ("3", "a list of ops for each rank"),
        ('[[["F", 0, 0]]]', "op 0 of rank 0: F has 2 numbers; expected direction, stage, micro-batch"),
        ('[[["F", 0, 0, 1.5]]]', "op 0 of rank 0: 1.5 is not a whole number"),
        ('[[[["F"], 0, 0, 1]]]', "op 0 of rank 0: ['F'] is not a kind of op"),
        ('[["F"]]', "op 0 of rank 0: 'F' is not an op"),
    ],
)
def test_json_table_mistakes(tmp_path, text, part):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(ScheduleError) as error:
        read_table(path)
    assert part in str(error.value)


# -- zb-auto -----------------------------------------------------------------------------------------------


def held(played, m_b, m_w):
    """Most activation memory on each rank: m_b from F to B, m_w of it until W."""
    result = []
    for ops in played.schedule.orders:
        change = {"F": m_b, "B": m_w - m_b, "W": -m_w, "BW": -m_b}
        result.append(max(np.cumsum([change[op[0]] for op in ops])))
    return result


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), DURATION, st.sampled_from([0.0, 0.1, 1.0]), st.data())
def test_zb_auto_is_never_worse_than_zb_h1_under_its_memory(p, m, w, comm, data):
    times = [data.draw(st.lists(DURATION, min_size=p, max_size=p)) for _ in range(2)] + [w]
    limit = p * data.draw(st.sampled_from([1, 1.5, 2, 3]))
    m_w = data.draw(st.sampled_from([1.0, 0.4, 0.0]))
    options = {"memory_limit": limit, "weight_activation": m_w, "comm": comm}
    options |= dict(zip(("forward", "backward", "weight"), times))
    h1 = play("zb-h1", p, m, times=times, comm=comm)
    for objective in ("makespan", "span"):
        found = evaluate(schedule("zb-auto", p, m, **options, objective=objective), *times, comm)
        assert found.makespan <= h1.makespan * (1 + 1e-9)
        assert found.span.max() <= h1.span.max() * (1 + 1e-9)
        assert max(held(found, 1.0, m_w)) <= limit * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), DURATION, DURATION, st.data())
def test_zb_auto_keeps_small_and_uneven_limits(p, m, f, w, data):
    limits = data.draw(st.lists(st.integers(2, 2 * p + 2).map(lambda n: n / 2), min_size=p, max_size=p))
    found = schedule("zb-auto", p, m, forward=f, weight=w, comm=0.1, memory_limit=limits)
    played = evaluate(found, f, 1.0, w, 0.1)
    assert all(use <= limit + 1e-9 for use, limit in zip(held(played, 1.0, 1.0), limits))
    if all(limit >= p - r for r, limit in enumerate(limits)):
        assert played.makespan <= play("1f1b", p, m, times=(f, 1.0, w), comm=0.1).makespan * (1 + 1e-9)


# The paper's own searches, ZB-1p and ZB-2p (Table 5), for the smallest and the largest m of p = 8. Activations as
# its Table 1 counts them: M_B = s b (34 h + 5 a s), M_W = 32 s b h; s = 1024, and h = 2304, a = 24 in this model.
@pytest.mark.parametrize(("setting", "one_p", "two_p"), [(0, 0.1585, 0.0433), (2, 0.0674, 0.0026)])
def test_zb_auto_finds_what_the_paper_found(setting, one_p, two_p):
    p, m, *times, comm = ZERO_BUBBLE[setting][:6]
    options = dict(zip(("forward", "backward", "weight"), times)) | {"comm": comm, "objective": "span"}
    options["weight_activation"] = 32 * 2304 / (34 * 2304 + 5 * 24 * 1024)
    for limit, published in ((p, one_p), (2 * p, two_p)):
        found = schedule("zb-auto", p, m, **options, memory_limit=limit)
        assert span_rate(evaluate(found, *times, comm), m * sum(times)) <= published + 0.001


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"memory_limit": 0.5}, "memory_limit: 0.5 on rank 0 does not hold one micro-batch"),
        ({"memory_limit": [4, 4]}, "memory_limit: 2 limits given; expected one, or one for each of 4 stages"),
        ({"weight_activation": 2}, "weight_activation: 2 is not possible"),
        ({"activation": 0}, "activation: 0 is not possible"),
        ({"comm": -1}, "comm: -1 is no time"),
        ({"objective": "speed"}, "objective: 'speed' is not known; expected makespan or span"),
    ],
)
def test_zb_auto_mistakes(options, part):
    with pytest.raises(ScheduleError) as error:
        schedule("zb-auto", 4, 8, **options)
    assert part in str(error.value)
