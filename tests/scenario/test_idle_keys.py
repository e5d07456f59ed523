"""Keys that change nothing in a combination: a warning says so, and says the truth; sweeps go on."""

from typing import Any

import pytest

import llmsim
from llmsim.scenario.checks.idle import IDLE
from llmsim.scenario.overrides import overridden
from llmsim.scenario.schema import Scenario

PLAIN = {
    "name": "plain",
    "model": {"layers": 4, "hidden": 1024, "heads": 16, "ffn_hidden": 2048, "vocab": 8192},
    "cluster": {"topology": "dgx-h100", "nodes": 1},
    "training": {"seq_len": 2048, "global_batch": 16},
    "simulation": {"detail": "block"},
}
OTHER: dict[str, Any] = {
    "parallelism.cp_kind": "all_gather",
    "parallelism.etp": 1,
    "parallelism.dispatch": "deduplicated",
    "parallelism.expert_imbalance": 2.0,
    "training.overlap.tp": True,
    "simulation.seed": 3,
    "training.host.experts": "1 ms",
    "training.host.experts_backward": "1 ms",
    "cluster.routing": "ecmp-hash",
}


def idle(scenario: Scenario) -> list[str]:
    return [line for line in scenario.warnings if "has no effect" in line]


@pytest.mark.parametrize("key, when", [(key, when) for key, _, when in IDLE])
def test_what_is_said_to_have_no_effect_has_none(key, when):
    plain, given = Scenario(**PLAIN), Scenario(**overridden(PLAIN, {key: OTHER.get(key, False)}))
    assert idle(plain) == []
    assert idle(given) == [f"{key}: has no effect {when}"]
    before, after = (llmsim.simulate(each).metrics for each in (plain, given))
    for metrics in (before, after):
        metrics["simulation"] = {}
    assert before == after


def test_defaults_and_what_a_framework_sets_are_no_news():
    framework = overridden(PLAIN, {"training.framework": "megatron-core", "parallelism.cp_kind": "ring"})
    assert idle(Scenario(**framework)) == []


def test_a_sweep_over_cp_goes_on():
    base = overridden(PLAIN, {"parallelism.cp_kind": "all_gather"})
    table = llmsim.sweep(base, {"parallelism.cp": [1, 2]}, workers=1)
    assert table["status"].tolist() == ["ok", "ok"]
