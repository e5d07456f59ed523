"""Played jobs against closed forms: Daly's exact mean and interval, the job without failures, sums, seeds, states."""

from dataclasses import replace
from itertools import islice, takewhile
from math import ceil, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.job.costs import saved_bytes, transfers
from llmsim.job.failures import Failure, Failures, Offenders, Parts
from llmsim.job.formulas import daly_interval, exact_goodput, rsc_ettr, young_interval
from llmsim.job.interval import best_interval
from llmsim.job.monte_carlo import play_runs
from llmsim.job.player import NeverEnds, play_job
from llmsim.job.policy import HEALTHY, Checkpointing, Elastic, Job, Recovery, Soft, Spares, State
from llmsim.job.spread import Spread, slowest
from llmsim.scenario import load_scenario

# M, save, restart, Daly's interval, Young's, exact goodput there and at 1800 s: references of Daly 2006's form
TABLE = [
    (10000.0, 30.0, 600.0, 755, 775, 0.8707, 0.8442),
    (10000.0, 300.0, 600.0, 2254, 2449, 0.7295, 0.7254),
    (3600.0, 60.0, 300.0, 618, 657, 0.7621, 0.6801),
    (1080.0, 5.0, 600.0, 101, 104, 0.5203, 0.2214),
    (86400.0, 40.0, 1200.0, 2602, 2629, 0.9565, 0.9545),
]
NOTHING = Spread(0.0)


def job(failures: Failures, every: int, stall: float, restart: float, iterations: int, **more) -> Job:
    made = Job(
        iterations, 8, failures, Checkpointing(every, stall), Recovery(NOTHING, 0.0, Spread(restart)),
        Spares(10**6, 0.0, NOTHING, NOTHING), Soft(NOTHING, NOTHING, 0.0), paces={HEALTHY: 1.0},
    )  # fmt: skip
    return replace(made, **more)


def failing(mtbf: float, shape: float = 1.0) -> Failures:
    return Failures(1, (Parts("job", 1, mtbf, shape),))


@pytest.mark.parametrize("mtbf, stall, restart, daly, young, best, other", TABLE)
def test_formulas(mtbf, stall, restart, daly, young, best, other):
    assert round(daly_interval(stall, mtbf)) == daly and round(young_interval(stall, mtbf)) == young
    assert exact_goodput(daly, stall, restart, mtbf) == pytest.approx(best, abs=6e-5)
    assert exact_goodput(1800.0, stall, restart, mtbf) == pytest.approx(other, abs=6e-5)


@pytest.mark.parametrize("at_best", [True, False])
@pytest.mark.parametrize("mtbf, stall, restart, daly", [row[:4] for row in TABLE])
def test_the_mean_is_dalys_exact_one(mtbf, stall, restart, daly, at_best):
    tau = daly if at_best else 1800
    runs, _ = play_runs(job(failing(mtbf), tau, stall, restart, tau * 100), 150, seed=7, workers=1)
    expected = tau * 100 / exact_goodput(tau, stall, restart, mtbf)
    error = runs.elapsed.std(ddof=1) / sqrt(len(runs.elapsed))
    assert abs(runs.elapsed.mean() - expected) <= 3 * error


@pytest.mark.parametrize("mtbf, stall, restart, daly", [row[:4] for row in TABLE if row[0] > 2000])
def test_the_best_interval_is_dalys(mtbf, stall, restart, daly):
    assert best_interval(job(failing(mtbf), 1800, stall, restart, 10**6), seed=7).every == pytest.approx(daly, rel=0.05)


@pytest.mark.parametrize("iterations, every", [(1000, 100), (1001, 100), (99, 100), (1000, 1)])
def test_without_failures_a_job_is_its_iterations_and_its_saves(iterations, every):
    outcome = play_job(job(Failures(1), every, 7.0, 600.0, iterations), 0, 0)
    assert outcome.elapsed == pytest.approx(iterations + 7.0 * ceil(iterations / every), rel=1e-12)
    assert outcome.saves == ceil(iterations / every) and not outcome.failures


@given(st.data())
def test_lost_parts_add_up_whatever_happens(data):
    draw = data.draw
    causes = draw(
        st.lists(st.sampled_from(["gpu", "software", "sdc", "planned", "slow_gpu", "flap", "switch"]), unique=True)
    )
    parts = tuple(
        Parts(cause, 4, draw(st.floats(2000.0, 1e5)), draw(st.sampled_from([0.8, 1.0, 2.0]))) for cause in causes
    )
    memory = draw(st.booleans())
    kind = Checkpointing(
        draw(st.integers(20, 300)), draw(st.floats(0.0, 5.0)), draw(st.floats(0.0, 15.0)), 3.0 if memory else None,
        draw(st.integers(1, 3)) if memory else 1, draw(st.floats(1.0, 1.5)), 10.0, 2.0,
        draw(st.sampled_from([None, 50])),
    )  # fmt: skip
    both = (False, True)
    states = {
        State(n, slow, flap): 1.0 + 0.4 * n + 0.2 * slow + 0.1 * flap
        for n in range(4)
        for slow in both
        for flap in both
    }
    played = job(
        Failures(4, parts), kind.every, 0.0, 20.0, 5000, checkpoint=kind, paces=states,
        spares=Spares(draw(st.integers(0, 2)), 5.0, Spread(500.0, 0.5), Spread(300.0), draw(st.integers(1, 2))),
        elastic=draw(st.sampled_from([None, Elastic(4, 1.0, 1, 30.0)])), soft=Soft(Spread(60.0), Spread(80.0), 40.0),
        variation=draw(st.sampled_from([0.0, 0.02])),
    )  # fmt: skip
    outcome = play_job(played, draw(st.integers(0, 1000)), 0)
    assert outcome.productive == pytest.approx(5000.0, rel=1e-9)
    assert outcome.elapsed == pytest.approx(outcome.productive + sum(outcome.lost.values()), rel=1e-9)
    assert all(seconds >= -1e-6 for seconds in outcome.lost.values())


def test_equal_seeds_give_equal_runs_in_any_number_of_processes():
    played = job(failing(3000.0, 0.7), 100, 5.0, 60.0, 20000)
    one, two = play_job(played, 3, 5, history=True), play_job(played, 3, 5, history=True)
    assert one == two and one != play_job(played, 4, 5, history=True)
    alone, _ = play_runs(played, 30, 3, workers=1)
    assert alone.elapsed[5] == one.elapsed


@pytest.mark.parametrize("shape", [1.0, 0.7])
def test_two_policies_meet_the_same_failures(shape):
    failures = Failures(8, (Parts("gpu", 64, 1e6, shape), Parts("node", 8, 1e6, shape)))
    first, second = (
        play_job(job(failures, 500, 5.0, restart, 200_000), 1, 0, history=True).marks for restart in (10.0, 100.0)
    )
    assert len(first) > 5
    assert [m for m in second if m[0] < 150_000] == [m for m in first if m[0] < 150_000]


@pytest.mark.parametrize("shape", [0.5, 1.0, 3.0])
def test_failures_are_as_many_as_their_mean_time_says(shape):
    """In the long run, when parts have been renewed often: horizon/MTBF a part, within its spread."""
    failures = Failures(10, (Parts("gpu", 20, 1000.0, shape),))
    count = sum(1 for _ in takewhile(lambda f: f.time < 1e6, failures.drawn(0, 0)))
    assert count == pytest.approx(20_000, rel=0.06)


def test_young_parts_fail_more_often_and_burn_in_helps():
    def in_a_month(shape: float, burn_in: float) -> int:
        parts = Parts("gpu", 16384, 5 * 365 * 86400.0, shape, burn_in)
        return sum(1 for _ in takewhile(lambda f: f.time < 30 * 86400.0, Failures(2048, (parts,)).drawn(0, 0)))

    steady, fresh, aged = in_a_month(1.0, 0.0), in_a_month(0.6, 0.0), in_a_month(0.6, 365 * 86400.0)
    assert steady == pytest.approx(16384 * 30 / (5 * 365), rel=0.15)
    assert fresh > 2 * steady and aged < fresh / 2


@pytest.mark.parametrize("shape", [1.0, 0.9999])
def test_repeat_offenders_fail_most_until_they_are_excluded(shape):
    offenders = Offenders(0.05, 20.0)
    failures = Failures(100, (Parts("node", 100, 1000.0, shape),), offenders)
    nodes = [f.node for f in islice(failures.drawn(0, 0), 4000)]
    bad = np.bincount(nodes, minlength=100)
    # 5 of 100 nodes, 20 times as often: 5·20 / (5·20 + 95) of all failures
    assert np.sort(bad)[-5:].sum() / 4000 == pytest.approx(100 / 195, rel=0.08)
    excluded = replace(failures, offenders=replace(offenders, exclude_after=1))
    last = lambda each: [f.time for f in islice(each.drawn(0, 0), 2000)][-1]  # noqa: E731
    assert last(excluded) / last(failures) == pytest.approx(195 / 100, rel=0.1)


def test_a_job_in_the_gaps_between_told_failures():
    """One failure every 1080 s and 600 s to restart: 480 s of 1080 are left, and saves cost nothing."""
    outcome = play_job(job(Failures(1, gaps=(1080.0,)), 1, 0.0, 600.0, 48_000), 0, 0)
    assert outcome.productive / outcome.elapsed == pytest.approx(480 / 1080, abs=0.005)


def test_asynchronous_saves_are_lost_while_they_are_written():
    """A failure 5 s after a save that takes 10 s to write goes back to the save before, 20 s after it does not."""
    for after, redone in ((5.0, 105.0), (20.0, 20.0)):
        told = Failures(1, fixed=(Failure(200.0 + after, "job", -1, (0.5,) * 4),))
        kind = Checkpointing(100, 0.0, persist=10.0)
        outcome = play_job(job(told, 100, 0.0, 30.0, 1000, checkpoint=kind), 0, 0)
        assert outcome.lost["recomputed"] == pytest.approx(redone)
        assert outcome.elapsed == pytest.approx(1000.0 + redone + 30.0)


def test_copies_in_memory_survive_one_node_and_not_a_switch():
    kind = Checkpointing(100, 0.0, persist=10.0, peer=2.0, storage_every=4, load=50.0, load_peer=5.0)
    for cause, redone, load in (("node", 50.0, 5.0), ("switch", 250.0, 50.0)):
        told = Failures(8, fixed=(Failure(650.0, cause, 0, (0.5,) * 4),))
        spares = Spares(8, 0.0, NOTHING, NOTHING, behind_switch=4)
        outcome = play_job(job(told, 100, 0.0, 0.0, 1000, checkpoint=kind, spares=spares), 0, 0)
        assert outcome.lost["recomputed"] == pytest.approx(redone) and outcome.lost["load"] == load


def test_silent_corruption_is_rolled_back_to_before_it_began():
    told = Failures(1, fixed=(Failure(350.0, "sdc", 0, (0.5,) * 4),))
    soft = Soft(NOTHING, Spread(300.0), 0.0)
    outcome = play_job(job(told, 100, 0.0, 0.0, 1000, soft=soft), 0, 0)
    assert outcome.lost["recomputed"] == pytest.approx(350.0)  # from 650 back to the save at 300
    kept = Checkpointing(100, 0.0, keep=2)
    assert play_job(job(told, 100, 0.0, 0.0, 1000, soft=soft, checkpoint=kept), 0, 0).lost[
        "recomputed"
    ] == pytest.approx(650.0)


def test_slow_gpus_and_flaps_slow_the_job_as_long_as_they_last():
    soft = Soft(Spread(90.0), NOTHING, 40.0)
    paces = {HEALTHY: 1.0, State(0, True, False): 1.25, State(0, False, True): 2.0}
    slow = Failures(1, fixed=(Failure(100.0, "slow_gpu", 0, (0.5,) * 4),))
    outcome = play_job(job(slow, 100, 0.0, 15.0, 1000, soft=soft, paces=paces), 0, 0)
    # Found 90 s later, at 172 iterations; swapped after the save at 200, 35 s later.
    assert outcome.lost["degraded"] == pytest.approx(25.0) and outcome.lost["restart"] == 15.0
    flap = Failures(1, fixed=(Failure(100.0, "flap", 0, (0.5,) * 4),))
    outcome = play_job(job(flap, 100, 0.0, 15.0, 1000, soft=soft, paces=paces), 0, 0)
    assert outcome.lost["degraded"] == pytest.approx(20.0) and outcome.elapsed == pytest.approx(1020.0)


def test_an_elastic_job_goes_on_with_fewer_replicas():
    told = Failures(4, fixed=(Failure(100.0, "node", 1, (0.5,) * 4),))
    spares, paces = Spares(0, 0.0, Spread(310.0), None), {HEALTHY: 1.0, State(1): 4 / 3}
    waiting = play_job(job(told, 50, 0.0, 10.0, 1000, spares=spares), 0, 0)
    assert waiting.lost["waiting"] == pytest.approx(310.0) and waiting.elapsed == pytest.approx(1320.0)
    going = play_job(job(told, 50, 0.0, 10.0, 1000, spares=spares, paces=paces, elastic=Elastic(4, 1.0, 1, 20.0)), 0, 0)
    # 300 s at three quarters of the pace, and 20 s when the replica comes back
    assert going.lost["degraded"] == pytest.approx(75.0) and going.lost["restart"] == 30.0
    assert going.elapsed == pytest.approx(1105.0)


def test_a_job_without_nodes_says_that_it_never_ends():
    told = Failures(4, fixed=(Failure(100.0, "node", 1, (0.5,) * 4),))
    with pytest.raises(NeverEnds, match=r"0 spares are used up after 0\.00116 days, and no node is repaired"):
        play_job(job(told, 50, 0.0, 10.0, 1000, spares=Spares(0, 0.0, None, None)), 0, 0)


def test_times_that_vary():
    spread = Spread(240.0, 1.2)
    times = [spread.at(share) for share in np.random.default_rng(0).random(40_000)]
    assert np.median(times) == pytest.approx(240.0, rel=0.03) and np.mean(times) == pytest.approx(spread.mean, rel=0.03)
    assert Spread(5.0).at(0.99) == 5.0
    highest = np.random.default_rng(0).standard_normal((4000, 1000)).max(axis=1)
    assert np.mean([slowest(1000, share) for share in np.linspace(0.0005, 0.9995, 1000)]) == pytest.approx(
        highest.mean(), rel=0.01
    )


def test_the_papers_formula_for_the_ettr():
    assert rsc_ettr(2048, 6.5e-3 / 86400, 300.0, 1800.0, 20.0) == pytest.approx(0.806, abs=5e-4)


@pytest.mark.parametrize("changes, size", [
    ({}, 14.0), ({"parallelism.zero": 3}, 12.0), ({"training.precision": "fp32"}, 12.0),
    ({"training.optimizer": "sgd"}, 10.0),
    ({"job.checkpoint.bytes_per_parameter": 2}, 2.0),
])  # fmt: skip
def test_bytes_of_a_checkpoint(changes, size):
    assert saved_bytes(load_scenario("quickstart", changes)) == size


def test_checkpoints_go_over_the_links_of_the_cluster():
    """8 H100s on 4 PCIe switches: two GPUs share an uplink of 64 GB/s, and two nodes their storage."""
    scenario = load_scenario("quickstart", {"cluster.nodes": 2, "job.checkpoint.bandwidth": "1 GB/s"})
    costs, topology = transfers(scenario, 1e9), scenario.resolve().topology
    assert costs.size == 14e9 and costs.write == pytest.approx(14.0)
    assert costs.offload == pytest.approx(14e9 / 16 / (topology.node.pcie.bandwidth / 2))
    assert costs.nic_share == pytest.approx(0.5e9 / (8 * 50e9))
