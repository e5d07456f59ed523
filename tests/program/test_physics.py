"""What is simulated depends on what is asked, not on what was asked before."""

import json
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import networkx as nx
import pytest
from folders import ROOT
from histories import CALIBRATION, QUESTIONS, answer, scenario

import llmsim
from llmsim.catalogue.collective_constants import CATALOGUED, Achieved, collective_constants
from llmsim.cluster.as_graph import build_graph
from llmsim.cluster.reading.load import load_topology
from llmsim.collectives import Group, plan_collective
from llmsim.collectives.plan import plan_dispatch
from llmsim.program.physics import Physics, physics_of
from llmsim.program.what_if import WhatIf
from llmsim.studies.search.bounds import bound

KEY = ("ring_efficiency", "hopper")


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "calibration.yaml"
    path.write_text(CALIBRATION, "utf-8")
    return str(path)


@pytest.mark.slow
def test_any_sequence_of_questions_has_the_answers_of_fresh_processes(calibration):
    program = ROOT / "tests" / "histories.py"
    alone = {
        kind: subprocess.run(
            [sys.executable, program, kind, calibration], capture_output=True, text=True, check=True
        ).stdout.strip()
        for kind in QUESTIONS
    }
    assert len(set(alone.values())) == len(QUESTIONS)
    for kind in random.Random(5).choices(list(QUESTIONS), k=20):
        assert answer(kind, calibration) == alone[kind], kind


def test_the_catalogue_cannot_be_changed():
    with pytest.raises(TypeError):
        collective_constants()["achieved"]["launch"]["hopper"] = 1.0
    with pytest.raises(TypeError):
        CATALOGUED["launch"]["hopper"] = 1.0


def test_other_constants_are_a_value():
    """Equal changes are equal values in every process, and the catalogue's own are the default."""
    changed = Achieved.of({KEY: 0.5})
    assert changed == Achieved.of({KEY: 0.5}) == pickle.loads(pickle.dumps(changed))
    assert (changed.value(KEY), CATALOGUED.value(KEY)) == (0.5, collective_constants()["achieved"][KEY[0]][KEY[1]])
    others = [key for key in CATALOGUED.paths() if key != KEY]
    assert others and all(changed.value(key) == CATALOGUED.value(key) for key in others)


@pytest.mark.parametrize("operation", ["all_reduce", "dispatch"])
def test_plans_of_other_constants_are_other_plans(operation):
    group = Group(16, 2, architecture="hopper")
    slow = replace(group, achieved=Achieved.of({("launch", "hopper"): 1e-3}))

    def seconds(each):
        if operation == "dispatch":
            return plan_dispatch(1e6, each, 4, 0).seconds
        return plan_collective(operation, 1e6, each).seconds

    before = seconds(group)
    assert seconds(slow) > before + 5e-4
    assert seconds(group) == before


def test_physics_join_calibration_and_what_if(calibration):
    plain, own = physics_of(scenario()), physics_of(scenario(calibration), WhatIf(between=3.0))
    assert plain == Physics() and hash(plain) == hash(Physics())
    assert own.what_if.between == pytest.approx(1.5) and own.achieved.value(KEY) == 0.5
    assert dict(own.kernels) == {"issue": 0.8, "launch": 2.0}
    assert own == physics_of(scenario(calibration), WhatIf(between=3.0))


def test_a_changed_calibration_file_is_read_again(tmp_path):
    path = tmp_path / "calibration.yaml"
    times = []
    for speed in (1.0, 0.5):
        path.write_text(f"speeds: {{math: {speed}}}\n", "utf-8")
        times.append(llmsim.simulate(scenario(str(path))).metrics["iteration_time_s"])
    assert times[1] > 1.2 * times[0]


def test_a_changed_graph_is_read_again(tmp_path):
    """By whatever knows the topology: its plans, its routes, and the bounds of a search."""
    path, times, bounds = tmp_path / "own.json", [], []
    for bandwidth in ("400 Gbps", "40 Gbps"):
        overrides = {"node.nic.bandwidth": bandwidth}
        graph = build_graph(load_topology("dgx-a100", overrides), 2)
        path.write_text(json.dumps(nx.node_link_data(graph, edges="edges")), "utf-8")
        own = scenario().with_values({"cluster": {"topology": str(path), "nodes": 2}, "parallelism.ep": 1})
        times.append(llmsim.simulate(own).metrics["iteration_time_s"])
        bounds.append(bound(own).seconds)
    assert times[1] > 1.5 * times[0] and bounds[1] > 1.5 * bounds[0]
