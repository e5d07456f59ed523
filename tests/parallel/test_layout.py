"""The rank grid against the groups that Megatron-LM documents and prints."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.errors import ScenarioError
from llmsim.parallel.layout import AXES, GRID_AXES, Layout


def test_megatron_example_of_16_gpus():
    """The docstring of `initialize_model_parallel` in Megatron-LM: 16 GPUs, tp 2, pp 4."""
    layout = Layout(tp=2, pp=4, dp=2)
    assert layout.groups("tp").tolist() == [[2 * i, 2 * i + 1] for i in range(8)]
    assert layout.groups("pp").tolist() == [[i, i + 4, i + 8, i + 12] for i in range(4)]
    assert layout.groups("dp").tolist() == [[0, 2], [1, 3], [4, 6], [5, 7], [8, 10], [9, 11], [12, 14], [13, 15]]
    assert layout.groups("tp-pp").tolist() == [[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]


def test_context_parallel_ranks_lie_between_tensor_and_data():
    layout = Layout(tp=2, cp=2, dp=2)
    assert layout.groups("cp").tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert layout.groups("dp").tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert layout.groups("dp-cp").tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_pipeline_before_data_when_the_order_says_so():
    layout = Layout(tp=2, pp=2, dp=2, order=("tp", "cp", "ep", "pp", "dp"))
    assert layout.groups("pp").tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert layout.groups("dp").tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_experts_spread_over_neighbouring_data_ranks():
    layout = Layout(tp=2, dp=4, ep=2)
    assert layout.groups("ep").tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert layout.groups("edp").tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    outer = Layout(tp=2, dp=4, ep=2, order=("tp", "cp", "dp", "ep", "pp"))
    assert outer.groups("ep").tolist() == layout.groups("edp").tolist()


def test_experts_fold_over_tensor_ranks_that_do_not_share_them():
    """Megatron-Core's parallel folding: with etp 1 the eight experts of a tp 2 model are on eight neighbours."""
    layout = Layout(tp=2, dp=8, ep=8, etp=1)
    assert layout.groups("ep").tolist() == [list(range(8)), list(range(8, 16))]
    assert layout.groups("edp").tolist() == [[r, r + 8] for r in range(8)]
    assert (layout.edp, Layout(tp=2, dp=8, ep=8).edp) == (2, 1)


def test_experts_span_context_and_data():
    layout = Layout(cp=2, dp=4, ep=4)
    assert layout.groups("ep").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert layout.edp == 2


def test_shards_are_neighbours_and_replicas_are_apart():
    layout = Layout(dp=8, shard=4)
    assert layout.groups("shard").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert layout.groups("replica").tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert Layout(dp=8, cp=2).groups("shard").shape == (1, 16)


degree = st.sampled_from([1, 2, 3, 4])


@given(degree, degree, degree, degree, st.permutations(AXES), st.data())
def test_groups_partition_the_ranks_and_agree_with_coordinates(tp, cp, dp, pp, order, data):
    etp = data.draw(st.sampled_from([n for n in range(1, tp + 1) if tp % n == 0]))
    places = tp * cp * dp // etp
    ep = data.draw(st.sampled_from([n for n in range(1, places + 1) if places % n == 0]))
    layout = Layout(tp=tp, cp=cp, dp=dp, pp=pp, ep=ep, etp=etp, order=tuple(order))
    for group in (*GRID_AXES, "dp-cp", "tp-pp", "ep", "edp", "shard", "replica"):
        rows = layout.groups(group)
        assert rows.shape[1] == layout.degree(group)
        assert sorted(rows.ravel().tolist()) == list(range(layout.ranks))
        assert (np.diff(rows[:, 0]) > 0).all()
    for axis in (*GRID_AXES, "ep", "edp"):
        # Along a group its axis counts up and every other axis of the grid stands still.
        assert (layout.axis_index(axis)[layout.groups(axis)] == np.arange(layout.degree(axis))).all()
        assert [layout.coordinates(r)[axis] for r in range(layout.ranks)] == layout.axis_index(axis).tolist()
    for row in layout.groups("ep"):
        assert len(set((layout.axis_index("tp")[row] % etp).tolist())) == 1
        for axis in ("pp", "edp"):
            assert len(set(layout.axis_index(axis)[row].tolist())) == 1


@pytest.mark.parametrize(
    "layout, size",
    [
        (Layout(dp=16, ep=4, shard=8), 2),  # two copies of each expert in a replica of 8 ranks
        (Layout(dp=16, ep=8, shard=8), 1),
        (Layout(dp=16, ep=8, shard=4), 1),  # experts over two replicas: each holds half of them
        (Layout(tp=2, dp=8, ep=2, etp=1, shard=4), 4),
        (Layout(dp=16, ep=4, shard=8, order=("tp", "cp", "dp", "ep", "pp")), 4),  # copies are neighbours
        (Layout(dp=16, ep=4), 4),  # without hybrid sharding: all copies
    ],
)
def test_copies_of_an_expert_are_sharded_inside_a_replica(layout, size):
    """dp_shard · cp · tp / (etp · ep) of them, and the groups between replicas hold the same share."""
    assert layout.expert_shard == size
    shards, replicas = layout.groups("eshard"), layout.groups("ereplica")
    assert shards.shape[1] == size and replicas.shape[1] == layout.edp // size
    expert = layout.axis_index("ep")
    data = {int(rank): number for number, row in enumerate(layout.groups("shard")) for rank in row}
    for row in shards:
        assert len(set(expert[row].tolist())) == 1
        if layout.tp == 1 and layout.pp == 1:
            assert len({data[int(rank)] for rank in row}) == 1, "one replica"
    for row in replicas:
        assert len(set(expert[row].tolist())) == 1
    assert sorted(shards.ravel().tolist()) == list(range(layout.ranks)) == sorted(replicas.ravel().tolist())


def test_a_hundred_thousand_ranks_are_cheap():
    layout = Layout(tp=8, pp=16, dp=1024)
    assert layout.ranks == 131072
    assert layout.groups("dp").shape == (128, 1024)


@pytest.mark.parametrize(
    "bad, says",
    [
        ({"tp": 0}, "tp: 0"),
        ({"dp": 2, "ep": 3}, "ep: 3 does not divide"),
        ({"tp": 4, "etp": 3}, "etp: 3 does not divide"),
        ({"order": ("tp", "cp", "dp", "pp")}, "permutation"),
        ({"dp": 4, "shard": 3}, "shard: 3"),
        ({"dp": 24, "ep": 4, "shard": 6}, "shard: 6 leaves 6 places for experts"),
    ],
)
def test_contradictions_are_refused(bad, says):
    with pytest.raises(ScenarioError, match=says):
        Layout(**bad)


def test_unknown_groups_and_ranks_are_refused():
    with pytest.raises(ScenarioError, match="did you mean 'pp'"):
        Layout().groups("ppp")
    with pytest.raises(ScenarioError, match="rank 1 does not exist"):
        Layout().coordinates(1)
