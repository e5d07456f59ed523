"""Every key of the section `job` changes what `llmsim goodput` says, or is refused where it cannot.

A new key needs a line here: what the base has besides, and a value other than it has there.
"""

from typing import Any

import pytest

import llmsim
from llmsim.errors import UserError
from llmsim.scenario import Scenario
from llmsim.scenario.complaints import known_keys
from llmsim.scenario.overrides import overridden

BASE = {
    "name": "job",
    "model": {"layers": 2, "hidden": 1024, "heads": 16, "vocab": 8192},
    "cluster": {"topology": "dgx-h100", "nodes": 4},
    "parallelism": {"tp": 8, "zero": 1},
    "training": {"seq_len": 2048, "global_batch": 96, "tokens": 1e12},
    "simulation": {"detail": "block"},
    "job": {"failures": {"node_mtbf": "8 h"}, "checkpoint": {"interval": "10 min", "stall": "20 s"}},
}
ASIDE = {"job.checkpoint": {"interval": "10 min", "mode": "async", "bandwidth": "20 MB/s"}}
MEMORY = ASIDE | {"job.checkpoint.mode": "memory", "job.failures.switch_mtbf": "8 h"}
BAD = {"job.failures.repeat": {"share": 0.25, "factor": 40.0}}
WRONG = {"job.failures.sdc_mtbf": "500 h", "job.failures.sdc_found": {"median": "2 h", "sigma": 1.0}}
SLOW = {"job.failures.slow_gpu": {"mtbf": "30 h", "factor": 0.5}}
FLAP = {"job.failures.flap": {"mtbf": "3 h", "factor": 0.01, "time": "1 h"}, "parallelism.tp": 1}
ELASTIC = {"job.elastic": {"enabled": True}, "job.spares.repair": "10 h"}
FASTER = {"job.failures.node_mtbf": "2 h"}

# dotted key: (what the base has besides, value of the key)
JOB: dict[str, tuple[dict[str, Any], Any]] = {
    "iterations": ({}, 100000),
    "failures.preset": ({"job.failures": {}}, "opt-2021"),
    "failures.gpu_mtbf": ({}, "20 h"),
    "failures.node_mtbf": ({}, "20 h"),
    "failures.nic_mtbf": ({}, "20 h"),
    "failures.link_mtbf": ({}, "20 h"),
    "failures.switch_mtbf": ({}, "20 h"),
    "failures.software_mtbf": ({}, "20 h"),
    "failures.sdc_mtbf": ({}, "50 h"),
    "failures.sdc_found": (WRONG, "1 h"),
    "failures.planned_mtbf": ({}, "3 h"),
    "failures.job_mtbf": ({"job.failures": {}}, "3 h"),
    "failures.gaps": ({"job.failures": {}}, ["3 h", "20 min"]),
    "failures.shape": ({}, 0.7),
    "failures.burn_in": ({"job.failures.shape": 0.7}, "30 d"),
    "failures.slow_gpu.mtbf": (SLOW, "3 h"),
    "failures.slow_gpu.factor": (SLOW, 0.9),
    "failures.slow_gpu.found": (SLOW, "4 h"),
    "failures.flap.mtbf": (FLAP, "30 h"),
    "failures.flap.factor": (FLAP, 0.5),
    "failures.flap.time": (FLAP, "2 h"),
    "failures.repeat.share": (BAD | {"job.failures.repeat.exclude_after": 1}, 0.5),
    "failures.repeat.factor": (BAD | {"job.failures.repeat.exclude_after": 1}, 4.0),
    "failures.repeat.exclude_after": (BAD, 1),
    "checkpoint.interval": ({}, {"iterations": 5000}),
    "checkpoint.mode": ({}, "async"),
    "checkpoint.stall": ({}, "60 s"),
    "checkpoint.bytes_per_parameter": ({}, 2.0),
    "checkpoint.bandwidth": (ASIDE, "10 MB/s"),
    "checkpoint.read_bandwidth": ({}, "10 MB/s"),
    "checkpoint.network": (MEMORY | {"parallelism.tp": 1}, "separate"),
    "checkpoint.storage_every": (MEMORY, 4),
    "checkpoint.keep": (WRONG, 24),
    "recovery.detect": ({}, {"median": "5 min", "sigma": 1.0}),
    "recovery.diagnose": ({}, "5 min"),
    "recovery.restart": ({}, "5 min"),
    "recovery.load": ({}, "5 min"),
    "recovery.warm_up": ({}, "1 min"),
    "spares.nodes": ({}, 2),
    "spares.swap": ({"job.spares.nodes": 4}, "1 h"),
    "spares.repair": ({}, "1 h"),
    "spares.switch_repair": ({"job.failures.switch_mtbf": "20 h"}, "1 h"),
    "elastic.enabled": ({"job.spares.repair": "10 h"}, True),
    "elastic.fewest": (ELASTIC | FASTER, 3),
    "elastic.batch": (ELASTIC, "shrink"),
    "elastic.rejoin": (ELASTIC, "1 h"),
    "variation": ({}, 0.05),
}


def answer(changes: dict[str, Any]) -> dict[str, Any]:
    return llmsim.goodput(Scenario(**overridden(BASE, changes)), runs=4, seed=3, what_if=False).metrics


def test_every_key_has_its_case():
    keys = {key.removeprefix("job.") for key in known_keys(Scenario) if key.startswith("job.")}
    assert set(JOB) == {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}


@pytest.mark.parametrize("key", sorted(JOB))
def test_every_key_changes_an_answer(key):
    base, value = JOB[key]
    assert answer(base | {f"job.{key}": value}) != answer(base)


@pytest.mark.parametrize("kind, place", [("gpu_down", {"gpu": "node1.gpu3"}), ("node_down", {"node": "node1"})])
def test_what_is_down_interrupts_the_job_until_it_is_back(kind, place):
    quiet = {"job.failures": {}, "job.recovery": {"detect": 60, "restart": 30, "load": 10}}
    fault = {"kind": kind, "from": "20000 s", **place}
    healthy = answer(quiet)
    hit = answer(quiet | {"faults": [fault | {"until": "30000 s"}]})
    assert hit["failures"]["by_cause"] == {"fault": 1.0}
    # It waits until the node is back, 10,000 s after it went; the time-out passes meanwhile.
    assert hit["lost_s"]["detection"] + hit["lost_s"]["waiting"] == pytest.approx(10000.0)
    assert hit["lost_s"]["restart"] == 30.0 and hit["lost_s"]["load"] == 10.0
    assert hit["elapsed_s"] - healthy["elapsed_s"] == pytest.approx(
        sum(hit["lost_s"].values()) - sum(healthy["lost_s"].values())
    )
    # Without an end it is repaired as any other node.
    assert answer(quiet | {"faults": [fault]})["lost_s"]["waiting"] == pytest.approx(86400.0 - 60.0)


@pytest.mark.parametrize("kind, place, word", [
    ("gpu_down", {"gpu": "node1.gpu3"}, "GPU"), ("node_down", {"node": "node1"}, "node"),
])  # fmt: skip
def test_an_iteration_with_something_dead_never_ends(kind, place, word):
    dead = overridden(BASE, {"faults": [{"kind": kind, **place}]})
    with pytest.raises(
        UserError, match=rf"^faults\.0\.kind: an iteration with a dead {word} never ends; `llmsim goodput`"
    ):
        llmsim.simulate(dead)
