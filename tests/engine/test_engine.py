"""The engine: closed forms, fair sharing, dependencies, determinism, blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.engine.fairness import fill, max_min_speeds
from llmsim.engine.measure import measure
from llmsim.engine.plan import CapacityChange, Fragment, Item, Lane, Op, Part, Plan
from llmsim.engine.player import play
from llmsim.errors import SimulationError
from llmsim.intervals import attribute, covered, covered_each, gaps, union
from llmsim.program.folding.refinement import FlowSet, refine


def serial(*ops, lane="compute", owner=0, waits=(), signals=()):
    return Lane(owner, lane, [Item(Fragment(tuple(ops)), 0, 0, waits, signals)])


def op(seconds, demands=(), *, label=0, latency=0.0, repeat=1, weight=1.0, meeting=-1):
    tightest = max((amount for _, amount in demands), default=1.0)
    return Op(label, (Part(repeat, latency, seconds, tuple(demands), weight / tightest),), meeting)


def test_two_activities_share_a_resource_and_the_survivor_speeds_up():
    plan = Plan(capacities=[1.0], lanes=[serial(op(10, [(0, 1.0)])), serial(op(2, [(0, 1.0)]), lane="dp")])
    played = play(plan)
    assert played.rows[0][0, 3] == pytest.approx(12, rel=1e-12)
    assert played.rows[1][0, 3] == pytest.approx(4, rel=1e-12)


def test_small_demand_keeps_its_rate_and_the_large_one_gets_the_rest():
    """A communication kernel on 20% of the SMs beside a GEMM that could use all of them."""
    plan = Plan(capacities=[1.0], lanes=[serial(op(8, [(0, 1.0)])), serial(op(100, [(0, 0.2)], weight=8), lane="tp")])
    played = play(plan)
    assert played.rows[0][0, 3] == pytest.approx(10, rel=1e-12)
    assert played.rows[1][0, 3] == pytest.approx(100, rel=1e-12)


def test_latency_is_not_stretched_by_sharing():
    plan = Plan(
        capacities=[1.0],
        lanes=[serial(op(2, [(0, 1.0)], latency=1.0)), serial(op(4, [(0, 1.0)], latency=1.0), lane="dp")],
    )
    played = play(plan)
    assert played.rows[0][0, 3] == pytest.approx(5, rel=1e-12)
    assert played.rows[1][0, 3] == pytest.approx(7, rel=1e-12)


def test_ring_steps_are_events_and_the_merged_form_takes_the_same_time():
    ring = op(0.25, [(0, 0.5)], latency=1e-3, repeat=14)
    one, many = (play(Plan(capacities=[1.0], lanes=[serial(ring)]), steps=steps) for steps in (False, True))
    assert (one.events, many.events) == (1, 14)
    assert many.end == pytest.approx(14 * 0.251, rel=1e-12) == one.end


def test_signal_with_delay_and_item_order():
    plan = Plan(signals=1)
    plan.lanes = [
        serial(op(3.0), signals=((0, 0.5),)),
        Lane(1, "compute", [Item(Fragment((op(1.0),)), 0, 0, (0,), ()), Item(Fragment((op(1.0),)), 1)]),
    ]
    rows = play(plan).rows[1]
    assert rows[:, 2].tolist() == [3.5, 4.5]


def test_a_meeting_waits_for_the_slowest_and_ends_for_all_together():
    plan = Plan(meetings=[3])
    plan.lanes = [serial(op(t), op(1.0, meeting=0, label=1), op(t, label=2), owner=i) for i, t in enumerate((1, 5, 2))]
    rows = play(plan).rows
    assert [row[1, 3] for row in rows] == [6.0, 6.0, 6.0]
    assert [row[1, 2] for row in rows] == [5.0, 5.0, 5.0]
    assert [row[2, 3] for row in rows] == [7.0, 11.0, 8.0]


def test_capacity_change_slows_what_runs_and_recovery_speeds_it_up():
    plan = Plan(capacities=[1.0], lanes=[serial(op(10, [(0, 1.0)]))])
    plan.changes = [CapacityChange(2.0, 0, 0.5), CapacityChange(6.0, 0, 1.0)]
    assert play(plan).end == pytest.approx(12.0)


def test_what_can_never_go_on_is_named():
    plan = Plan(signals=1, lanes=[serial(op(1.0), waits=(0,), lane="pp_send", owner=3)])
    with pytest.raises(SimulationError, match="pp_send of class 3 at item 0"):
        play(plan)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_max_min_is_feasible_and_no_one_can_be_raised(data):
    resources = data.draw(st.integers(1, 4))
    capacity = [data.draw(st.floats(0.1, 10)) for _ in range(resources)]
    count = data.draw(st.integers(1, 6))
    demands, paces = [], []
    for _ in range(count):
        used = data.draw(st.sets(st.integers(0, resources - 1), min_size=1))
        demands.append([(r, data.draw(st.floats(0.01, 1.0)) * capacity[r]) for r in sorted(used)])
        paces.append(data.draw(st.floats(0.2, 5)))
    speeds = max_min_speeds(demands, paces, capacity)
    _, reasons = fill(demands, paces, dict(enumerate(capacity)))
    load = [
        sum(s * a for s, need in zip(speeds, demands) for r, a in need if r == resource)
        for resource in range(resources)
    ]
    assert all(used <= cap * (1 + 1e-9) for used, cap in zip(load, capacity))
    level = [speed / pace for speed, pace in zip(speeds, paces)]
    for i, speed in enumerate(speeds):
        assert 0 <= speed <= 1
        if speed < 1:
            tight = [r for r, _ in demands[i] if load[r] >= capacity[r] * (1 - 1e-6)]
            assert tight, "slowed down although no resource of it is full"
            assert reasons[i] and reasons[i] <= set(tight)
            assert any(
                all(level[i] >= level[j] - 1e-6 for j in range(count) if any(q == r for q, _ in demands[j]))
                for r in tight
            )


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_work_is_conserved_under_random_sharing(data):
    """Busy resource time integrates to the work asked, and a block measured alone equals kernel detail."""
    plan = Plan(capacities=[1.0, 2.0])
    for number in range(data.draw(st.integers(1, 5))):
        ops = [
            op(
                data.draw(st.floats(0.1, 3)),
                [(r, data.draw(st.floats(0.05, 1.0))) for r in data.draw(st.sets(st.integers(0, 1), min_size=1))],
                latency=data.draw(st.floats(0, 0.3)),
                repeat=data.draw(st.integers(1, 3)),
            )
            for _ in range(data.draw(st.integers(1, 4)))
        ]
        plan.lanes.append(serial(*ops, owner=number))
    first, again = play(plan), play(plan)
    assert all((a == b).all() for a, b in zip(first.rows, again.rows))
    for rows, lane in zip(first.rows, plan.lanes):
        ops = lane.items[0].fragment.ops
        assert (rows[1:, 2] >= rows[:-1, 3]).all()
        assert all(row[3] - row[2] >= o.seconds * (1 - 1e-9) for row, o in zip(rows, ops))
    total = [
        sum(
            a * p.seconds * p.repeat
            for lane in plan.lanes
            for o in lane.items[0].fragment.ops
            for p in o.parts
            for r, a in p.demands
            if r == resource
        )
        for resource in (0, 1)
    ]
    assert all(amount <= cap * first.end * (1 + 1e-6) for amount, cap in zip(total, plan.capacities))


def test_block_of_a_pass_equals_its_kernels():
    lanes = {
        "compute": [
            Item(Fragment((op(1.0, [(0, 1.0)]),), (), (0,)), 0),
            Item(Fragment((op(2.0, [(0, 1.0)]),), (1,)), 0),
        ],
        "tp": [Item(Fragment((op(0.5, [(0, 0.25)]),), (0,), (1,)), 0)],
    }
    measured = measure([1.0], lanes, 2)
    assert measured.end(0) == pytest.approx(3.5)
    assert measured.used == {0: {0: pytest.approx(1 + 2 + 0.125)}}


def test_passes_measured_beside_each_other_are_told_apart():
    lanes = {
        "compute": [Item(Fragment((op(1.0, [(0, 1.0)]),)), 0)],
        "beside": [Item(Fragment((op(1.0, [(0, 1.0)]),)), 1), Item(Fragment((op(2.0, [(0, 0.5)]),)), 2)],
    }
    measured = measure([1.0], lanes, 0)
    assert [measured.end(tag) for tag in (0, 1, 2, 3)] == pytest.approx([2.0, 2.0, 4.0, 0.0])
    assert [measured.used[tag][0] for tag in (0, 1, 2)] == pytest.approx([1.0, 1.0, 1.0])


def test_ledger_labels_every_second_once():
    starts, ends = np.array([1.0, 4.0]), np.array([2.0, 6.0])
    begins, finishes = gaps(starts, ends, 0.0, 8.0)
    seconds, idle = attribute(
        begins, finishes, [(np.array([1.5]), np.array([3.0])), (np.array([0.5, 2.0]), np.array([1.0, 7.0]))]
    )
    assert seconds == pytest.approx([1.0, 0.5 + 1.0 + 1.0])
    assert sum(seconds) + idle + 3.0 == pytest.approx(8.0)


def test_union_merges_touching_and_nested_intervals():
    s, e = union(np.array([5.0, 0.0, 1.0, 2.0]), np.array([6.0, 3.0, 2.0, 4.0]))
    assert (s.tolist(), e.tolist()) == ([0.0, 5.0], [4.0, 6.0])


def test_overlapping_ops_count_once_and_gaps_between_them_not():
    """[0, 3] and [2, 5] touch or overlap with [5, 6]; [8, 9] is apart: 7 of the 10 seconds."""
    starts, ends = union(np.array([8.0, 0.0, 5.0, 2.0]), np.array([9.0, 3.0, 6.0, 5.0]))
    assert (starts.tolist(), ends.tolist()) == ([0.0, 8.0], [6.0, 9.0])
    begins, finishes = np.array([0.0, 5.5, 7.0]), np.array([2.5, 8.5, 7.5])
    assert covered_each(starts, ends, begins, finishes).tolist() == [2.5, 1.0, 0.0]
    assert covered(starts, ends, np.array([0.0]), np.array([10.0])) == 7.0


def test_nothing_covers_and_is_covered_for_no_time():
    none, some = np.empty(0), np.array([1.0])
    assert covered_each(none, none, some, some + 2).tolist() == [0.0]
    assert covered_each(some, some + 2, none, none).tolist() == []
    assert attribute(some, some + 2, [(none, none)]) == ([0.0], 2.0)
    assert [part.tolist() for part in union(none, none)] == [[], []]


def grid(shape):
    return np.arange(int(np.prod(shape))).reshape(shape)


def test_refinement_folds_what_is_alike_and_splits_only_what_a_fault_touches():
    ranks = grid((4, 16, 8))  # pp, dp, tp
    tp = ranks.reshape(-1, 8)
    dp = ranks.transpose(0, 2, 1).reshape(-1, 16)
    nxt = np.concatenate((ranks[1:].ravel(), np.full(128, -1)))
    prv = np.concatenate((np.full(128, -1), ranks[:-1].ravel()))
    first = np.repeat(np.arange(4), 128)
    none = np.zeros(1, dtype=int)
    classes, _ = refine(first, [tp, dp], [nxt, prv], none, [])
    assert classes.max() + 1 == 4
    first[ranks[1, 3, 2]] = 99  # one slow GPU
    classes, _ = refine(first, [tp, dp], [nxt, prv], none, [])
    # per stage: the slow column's rank, its TP peers, and the two kinds of the other replicas
    assert classes.max() + 1 == 16
    assert len(set(classes[ranks[0, 5]])) == 2


def test_a_slow_link_splits_the_ranks_that_cross_it():
    flows = [FlowSet(np.arange(6), np.arange(6) // 2, np.ones(6))]
    classes, links = refine(np.zeros(6, dtype=int), [], [], np.array([0, 0, 1]), flows)
    assert classes.tolist() == [0, 0, 0, 0, 1, 1]
    assert links.tolist() == [0, 0, 1]


def test_a_change_elsewhere_does_not_undo_a_share():
    """At one instant a resource is crowded and another changes; what uses both keeps its share of the first."""
    both = Op(0, (Part(1, 0.0, 0.1, ((0, 0.14), (1, 0.47)), 1 / 0.56),))
    one = Op(0, (Part(1, 0.0, 0.1, ((1, 0.54),), 1 / 0.54),))
    lanes = [Lane(owner, "compute", [Item(Fragment((op,)), 0)]) for owner, op in enumerate((both, one))]
    plan = Plan(capacities=[1.0, 1.0], lanes=lanes, changes=[CapacityChange(0.0, 0, 0.25)])
    ends = [rows[0, 3] for rows in play(plan).rows]
    assert ends == pytest.approx([0.1 + 0.1 * (1 - 0.46 / 0.47), 0.1])


def test_what_begins_between_an_end_and_the_next_beginning_shares_too():
    """All at 2 s, in this order: the first op ends, so that there is room; one begins with room; one takes it away."""
    first, beside, between, last = (op(seconds, [(0, amount)], weight=amount) for seconds, amount in
                                    ((1, 3.0), (100, 1.0), (1, 0.5), (1, 2.5)))  # fmt: skip
    clock = serial(op(1.5), op(0.5), lane="clock", signals=((0, 0.0),))
    plan = Plan(capacities=[2.0], signals=1)
    plan.lanes = [serial(first, between), serial(beside, lane="dp"), clock, serial(last, lane="tp", waits=(0,))]
    played = play(plan)
    assert played.rows[0][:, 2:] == pytest.approx(np.array([[0, 2], [2, 4]]))  # at half speed, like the others
    assert played.rows[3][0, 2:] == pytest.approx(np.array([2, 4]))
