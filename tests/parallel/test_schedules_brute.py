"""The engine against a second evaluation of the definition: large sizes, uneven stages, transfers that take time."""

import random
import time
from graphlib import TopologicalSorter

import numpy as np
import pytest

import llmsim

SPLIT = ["zb-h1", "zb-h2", "zb-v", "zb-auto", "dualpipe", "dualpipe-v"]
SCHEDULES = ["gpipe", "1f1b", "interleaved", "looped-bfs", *SPLIT]


def longest_paths(schedule, seconds, comm, overlap):
    """[rank][op, (start, end)], by two rules: a rank plays in order, and inputs arrive first.

    The longest path through the graph of ops, in topological order; shares nothing with llmsim's own evaluator.
    """
    halves, length, order = {}, {}, []
    for rank, ops in enumerate(schedule.orders):
        for place, op in enumerate(ops):
            node = (rank, place)
            pieces = [("F", *op[1:4]), ("BW", *op[4:7])] if op[0] == "FB" else [op]
            length[node] = sum(seconds[letter][s] for kind, _, s, _ in pieces for letter in kind)
            length[node] *= overlap if op[0] == "FB" else 1.0
            for kind, d, s, i in pieces:
                for letter in kind:
                    halves[letter, d, s, i] = node
            order.append((node, pieces))
    inputs = {}
    for (rank, place), pieces in order:
        found = [((rank, place - 1), 0.0)] if place else []
        for kind, d, s, i in pieces:
            needs = [("F", s - 1)] if kind == "F" else [("B", s)] if kind == "W" else [("F", s), ("B", s + 1)]
            for letter, other in needs:
                source = halves.get((letter, d, other, i))
                if source is not None and source != (rank, place):
                    away = schedule.placement[d][other] != schedule.placement[d][s]
                    found.append((source, comm[other] if away else 0.0))
        inputs[rank, place] = found
    graph = TopologicalSorter({node: [source for source, _ in found] for node, found in inputs.items()})
    start = {}
    for node in graph.static_order():
        start[node] = max((start[source] + length[source] + delay for source, delay in inputs[node]), default=0.0)
    return [
        [(start[rank, place], start[rank, place] + length[rank, place]) for place in range(len(ops))]
        for rank, ops in enumerate(schedule.orders)
    ]


def sizes(count, largest_p, largest_m):
    """Random sizes that every schedule accepts: m a multiple of p and at least 2p, p even."""
    chance = random.Random(20240117)
    for _ in range(count):
        p = 2 * chance.randint(1, largest_p // 2)
        m = p * chance.randint(2, max(2, largest_m // p))
        name = chance.choice(SCHEDULES)
        v = chance.randint(1, 4) if name in ("interleaved", "looped-bfs") else None
        yield name, p, m, v, chance.randint(0, 10**6)


def check(name, p, m, v, seed):
    chance = random.Random(seed)
    stages = llmsim.simulate_schedule(name, p, m, v).schedule.virtual_stages
    times = [[chance.uniform(0.2, 2.0) for _ in range(stages)] for _ in range(3)]
    comm, overlap = [chance.choice([0.0, chance.uniform(0, 0.5)]) for _ in range(stages)], chance.uniform(0.6, 1.0)
    result = llmsim.simulate_schedule(name, p, m, v, *times, comm, overlap=overlap)
    expected = longest_paths(result.schedule, dict(zip("FBW", times)), comm, overlap)
    first = min(rows[0][0] for rows in expected)
    assert result.makespan_s == pytest.approx(max(rows[-1][1] for rows in expected) - first, rel=1e-9)
    for played, rows in zip(result.played, expected):
        assert played == pytest.approx(np.array(rows), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("case", list(sizes(40, 8, 24)), ids=lambda case: f"{case[0]}-p{case[1]}m{case[2]}v{case[3]}")
def test_uneven_stages_and_transfers(case):
    check(*case)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_largest_size(name):
    check(name, 32, 128, 4 if name in ("interleaved", "looped-bfs") else None, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["interleaved", "looped-bfs"])
def test_largest_size_takes_less_than_a_second(name):
    llmsim.simulate_schedule(name, 2, 4, 2)
    begin = time.process_time()
    llmsim.simulate_schedule(name, 32, 128, 4, comm=0.1)
    assert time.process_time() - begin < 1.0
