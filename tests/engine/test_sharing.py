"""Shares of resources in numbers: who holds whom back, and who is let go when that changes. One way by hand each.

Not stated here, since the answer is the same: how many activities are looked at again. `Sharing` may take in more than
it must (equals where it looks for faster ones, a `taken` that is too high, a `_reason` that is not seen, a load that is
exactly at its limit); their speeds come out as they were.
"""

import pytest

from llmsim.engine.plan import CapacityChange, Fragment, Item, Lane, Op, Part, Plan
from llmsim.engine.player import play, players_of, run
from llmsim.engine.sharing import Sharing
from llmsim.engine.state import Stage


def lane(owner, *ops):
    return Lane(owner, "compute", [Item(Fragment(tuple(ops)), 0)])


def op(seconds, *demands, flows=1.0, repeat=1, latency=0.0):
    """`flows`: how many flows it stands for, each with its fair share of the resource that it needs most of."""
    most = max((amount for _, amount in demands), default=1.0)
    return Op(0, (Part(repeat, latency, seconds, demands, flows / most),))


def ends(capacities, *lanes, changes=(), steps=True):
    """When the last op of each lane ends."""
    plan = Plan(list(capacities), [lane(i, *ops) for i, ops in enumerate(lanes)], changes=list(changes))
    return [rows[-1, 3] for rows in play(plan, steps=steps).rows]


def test_three_flows_on_two_links():
    """The long flow gets half of the first link, the second link's own flow the 1.5 of 2 that this leaves."""
    long, first, second = [op(4, (0, 1.0), (1, 1.0))], [op(3, (0, 1.0))], [op(3, (1, 2.0))]
    assert ends([1.0, 2.0], long, first, second) == pytest.approx([7.0, 6.0, 4.0], rel=1e-12)


def test_a_flow_that_is_slowed_elsewhere_leaves_its_share():
    """At 2 s two more cross the first link: the flow on both falls from 1/2 to 1/3, and its neighbour rises to 2/3."""
    both, neighbour, late = [op(3, (0, 1.0), (1, 1.0))], [op(3, (1, 1.0))], [op(2), op(2, (0, 1.0))]
    assert ends([1.0, 1.0], both, neighbour, late, late) == pytest.approx([8.0, 5.0, 8.0, 8.0], rel=1e-12)


@pytest.mark.parametrize("unit", [1.0, 1000.0, 1e-3])
def test_a_newcomer_takes_from_those_that_are_faster(unit):
    """The first runs at 0.9, for want of the second link; beside a newcomer on its first link both get half."""
    first, newcomer = [op(1.9, (0, unit), (1, unit))], [op(1), op(1, (0, unit))]
    assert ends([unit, 0.9 * unit], first, newcomer) == pytest.approx([3.0, 3.0], rel=1e-12)


@pytest.mark.parametrize("unit", [1.0, 1000.0, 1e-3])
def test_who_is_let_go_takes_from_those_that_are_faster(unit):
    """Two share link 1 at 1/2; from 2 s one of them gets 1/3 of link 0. The other rises to the 2/3 that link 1 leaves,
    and on link 2, which was full, the fast one falls from 1 to 5/6."""
    slowed, rising = [op(2, (0, unit), (1, unit))], [op(3, (1, unit), (2, unit))]
    fast, late = [op(4.5, (2, unit))], [op(2), op(1, (0, unit))]
    found = ends([unit, unit, 1.5 * unit], slowed, rising, fast, late, late)
    assert found == pytest.approx([5.0] * 5, rel=1e-12)


def test_a_newcomer_of_two_flows_takes_two_shares():
    first, newcomer = [op(1.6, (0, 1.0), (1, 1.0))], [op(1), op(2, (0, 1.0), flows=2)]
    assert ends([1.0, 0.6], first, newcomer) == pytest.approx([4.0, 4.0], rel=1e-12)


def test_shares_follow_the_number_of_flows():
    lanes = [op(2, (0, 1.0))], [op(6, (0, 1.0), flows=3)], [op(4), op(4, (0, 1.0), flows=4)]
    assert ends([1.0], *lanes) == pytest.approx([12.0, 12.0, 12.0], rel=1e-12)


def test_a_link_that_shrinks_below_what_flows_take_slows_them_although_another_held_them():
    """Both are held at 1/2 by the second link; from 2 to 4 s the first has room for a quarter of each."""
    both = [op(2, (0, 1.0), (1, 1.0))]
    changes = [CapacityChange(2.0, 0, 0.5), CapacityChange(4.0, 0, 2.0)]
    assert ends([2.0, 1.0], both, both, changes=changes) == pytest.approx([5.0, 5.0], rel=1e-12)


def test_each_step_of_a_ring_is_slowed_by_who_shares_its_link():
    """Four steps of 1 ms latency and 1 s at half speed; then the other has gone, and two at full speed."""
    ring, other = [op(1.0, (0, 1.0), repeat=6, latency=1e-3)], [op(4.002, (0, 1.0))]
    found = ends([1.0], ring, other)
    assert found[0] == pytest.approx(4 * 2.001 + 2 * 1.001, abs=3e-3)
    # Work is conserved: what the ring moves and what the other does fill the link, but for the ring's latencies.
    assert max(found) == pytest.approx(6.0 + 4.002 + 6e-3, abs=5e-3)


def test_nothing_is_loaded_before_and_after():
    stage = Stage(Plan([1.0, 1.0], [lane(0, op(1, (0, 0.3), (1, 0.7))), lane(1, op(2, (1, 1.0)))]), True)
    assert stage.load == [0.0, 0.0]
    run(stage, players_of(stage), None)
    assert stage.load == pytest.approx([0.0, 0.0], abs=1e-12)
    assert not any(stage.users)


def test_a_link_that_is_exactly_full_is_not_contested(monkeypatch):
    """1.1 + 2.2 is a little more than 3.3 in binary; that holds nobody back, and costs no sharing out."""
    monkeypatch.setattr(Sharing, "renew", lambda *_: pytest.fail("shared out anew"))
    assert 1.1 + 2.2 > 3.3
    assert ends([3.3], [op(1.0, (0, 1.1))], [op(1.0, (0, 2.2))]) == [1.0, 1.0]


def test_an_op_starts_exactly_when_what_it_waits_for_ends():
    plan = Plan(signals=1)
    plan.lanes = [
        Lane(0, "compute", [Item(Fragment((op(0.1), op(0.2)), (), (0,)), 0)]),
        Lane(1, "compute", [Item(Fragment((op(0.7),), (0,)), 0), Item(Fragment((op(0.1),)), 0)]),
    ]
    first, second = play(plan).rows
    assert second[0, 2] == first[1, 3] and second[1, 2] == second[0, 3]


def test_each_instance_of_a_fragment_waits_for_signals_of_its_own():
    """Signals of an instance are its base and offsets from it: the second waits for signal 3, fired at 6 s."""
    waits, fires = Fragment((op(1),), waits=(1,)), [Fragment((op(t),), signals=(1,)) for t in (1, 5)]
    plan = Plan(signals=4)
    plan.lanes = [
        Lane(0, "compute", [Item(waits, 0, 0), Item(waits, 1, 2)]),
        Lane(0, "tp", [Item(fires[0], 0, 0), Item(fires[1], 1, 2)]),
    ]
    assert play(plan).rows[0][:, 2].tolist() == [1.0, 6.0]
