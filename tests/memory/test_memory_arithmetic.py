"""Bytes in small numbers: model states, what passes hold over time, and what a node keeps outside its GPUs."""

from types import SimpleNamespace

import numpy as np
import pytest

from llmsim.memory.outside import Store
from llmsim.memory.replay import Curve, Passes, Replay, curve
from llmsim.memory.states import Keeping, States
from llmsim.parallel.schedules import schedule
from llmsim.program.stages.shares import Shares

SHARES = Shares(dense=80.0, expert=20.0)  # parameters
ADAM = {"weight": 2, "gradient": 4, "optimizer": "adam", "ranks": 8, "expert_ranks": 2}
F, B, W, UPDATE = range(4)


def test_nothing_is_sharded_or_outside_unless_said():
    """2 bytes of weights, 4 of gradients, 4 + 8 of fp32 masters and Adam's moments, on every rank."""
    assert Keeping(**ADAM).of(SHARES) == States(200.0, 400.0, 1200.0)
    assert Keeping(**ADAM).outside(SHARES) == States(0.0, 0.0, 0.0)


def test_each_stage_of_zero_shards_one_kind_of_states_more():
    """Dense parameters over 8 ranks and experts over 2: 10 + 10 of 100 parameters are a rank's own."""
    states = [Keeping(**ADAM, zero=zero).of(SHARES) for zero in range(4)]
    assert states[1:3] == [States(200.0, 400.0, 240.0), States(200.0, 80.0, 240.0)]
    assert states[3] == States(80.0, 80.0, 160.0)  # the shard of weights is the fp32 master, gradients are as wide


def test_what_is_outside_is_not_inside():
    """ZeRO-Offload: a CPU holds fp32 masters and moments, 12 bytes of each own parameter, and gradients as copied."""
    keeping = Keeping(**ADAM, zero=2, optimizer_outside=True, copied=2)
    assert keeping.of(SHARES) == States(200.0, 0.0, 0.0)
    assert keeping.outside(SHARES) == States(0.0, 40.0, 240.0)


def passes(*rows, fused=True):
    """Rows of (kind, chunk, start, end)."""
    kind, chunk, start, end = np.array(rows).T
    return Passes(kind.astype(int), np.full(len(rows), fused), chunk.astype(int), start, end)


def memory(**footprint):
    own = {"kept": 0.0, "waiting": 0.0, "forward": 0.0, "backward": 0.0, "backward_input": 0.0, "backward_weight": 0.0}
    held = SimpleNamespace(**{**own, **footprint}, parameters=Shares(10.0, 0.0))
    return SimpleNamespace(footprints=[held], whole_gradients=footprint.pop("whole", 0.0), update=3.0)


def test_passes_hold_from_forward_to_backward_and_start_and_end_at_nothing():
    """Two forwards keep 5 each and work in 2, their backwards in 4; the optimizer step works in 3 bytes a parameter."""
    played = passes((F, 0, 0, 1), (F, 0, 1, 2), (B, 0, 2, 3), (B, 0, 3, 4), (UPDATE, -1, 4, 5))
    found = curve([played], [0], memory(kept=5.0, forward=2.0, backward=4.0), held=10.0)
    assert found.times.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert found.levels[0].tolist() == [5, 5, 10, 10, 10, 5, 5, 0, 0, 0]
    assert found.levels[1].tolist() == [2, 0, 2, 0, 4, 0, 4, 0, 30, 0]
    assert found.levels[2].tolist() == [0] * 10
    assert found.peak == 8  # the optimizer step, whose buffers come beside those of passes, not in their place
    assert found.pools == 14 + 30


def test_between_the_halves_of_a_backward_only_what_waits_is_held():
    played = passes((F, 0, 0, 1), (B, 0, 1, 2), (W, 0, 5, 6), fused=False)
    found = curve([played], [0], memory(kept=5.0, waiting=2.0), held=0.0)
    assert found.levels[0].tolist() == [5, 5, 5, 2, 2, 0]


def test_pools_of_what_never_updates_or_only_updates():
    levels = np.array([[1.0, 7.0], [2.0, 0.0], [0.0, 1.0]])
    times = np.arange(2.0)
    assert Curve(times, levels, np.array([False, False])).pools == 8.0
    assert Curve(times, levels, np.array([True, True])).pools == 8.0
    assert Curve(times, levels, np.array([False, True])).pools == 3.0 + 8.0


def test_a_lane_may_begin_with_a_backward_and_its_scatter_belongs_to_the_weights():
    """Passes of a lane: input gradients of micro-batch 0, then its weight gradients with a scatter under their tag."""
    labels = [SimpleNamespace(phase=phase) for phase in ("backward", "weight", "backward")]
    tags = [SimpleNamespace(micro_batch=number, chunk=0) for number in range(4)]
    rows = np.array([(0, 0, 0.0, 1.0), (0, 0, 1.0, 2.0), (1, 0, 2.0, 3.0), (2, 0, 3.0, 3.5), (0, 1, 4.0, 5.0)])
    program = SimpleNamespace(
        labels=labels,
        tags=tags,
        schedule=schedule("zb-h1", 2, 4),
        classes=SimpleNamespace(count=[1]),
        plan=SimpleNamespace(lanes=[SimpleNamespace(name="beside", owner=0)]),
        stage_of=[0],
    )
    (found,) = Replay(program, SimpleNamespace(rows=[rows])).passes(0)
    assert found.kind.tolist() == [B, W, B]
    assert (found.start.tolist(), found.end.tolist()) == ([0.0, 2.0, 4.0], [2.0, 3.5, 5.0])
    assert not found.fused.any()
    (later,) = Replay(program, SimpleNamespace(rows=[rows[2:]])).passes(0)
    assert (later.kind.tolist(), later.end.tolist()) == ([W, B], [3.5, 5.0])


@pytest.mark.parametrize("more, fits", [(0.0, True), (2.0**-20, False)])
def test_a_node_that_is_exactly_full_is_not_too_full(more, fits):
    store = Store(3, 10 * 2.0**30, {"gradients": 4 * 2.0**30, "optimizer": (6 + more) * 2.0**30})
    assert store.fits is fits
    assert store.summary == {
        "node": 3, "capacity_gib": 10.0, "peak_gib": 10.0 + more, "fits": fits, "gradients_gib": 4.0,
        "optimizer_gib": 6.0 + more,
    }  # fmt: skip
