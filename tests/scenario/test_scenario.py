"""What a scenario accepts, what it means, and changed copies of it."""

import json
import pickle
import textwrap

import pytest
from folders import ROOT

from llmsim.errors import ScenarioError
from llmsim.scenario import Scenario, load_scenario

SCENARIOS = ROOT / "scenarios"

MINIMAL = {
    "name": "small",
    "model": "llama2-7b",
    "cluster": {"topology": "dgx-h100"},
    "training": {"global_batch": 16},
}


def write(tmp_path, text, name="case.yaml"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_a_minimal_mapping_gets_defaults():
    scenario = Scenario(**MINIMAL)
    assert scenario.training.precision == "bf16"
    assert scenario.training.recompute.mode == "selective"
    assert scenario.parallelism.order == ("tp", "cp", "ep", "dp", "pp")
    resolved = scenario.resolve()
    assert resolved.gpus == 8
    assert (resolved.layout.dp, resolved.layout.micro_batches) == (8, 2)
    assert resolved.architecture.layers == 32
    assert resolved.topology.name == "dgx-h100"
    assert scenario.warnings == ()


def test_yaml_with_units_and_words_of_yaml_11(tmp_path):
    path = write(
        tmp_path,
        """
        name: units
        model: llama2-7b
        cluster:
          topology: dgx-h100
          nodes: 2
          overrides: {node: {nic: {bandwidth: 100 Gbps}}, network.oversubscription: 2}
        parallelism: {tp: 2, pp: 2, sequence_parallel: on}
        training: {global_batch: 64, tokens: 300e9, recompute: {mode: full, layers: 4}, offload: }
        simulation: {fold: off, detail: block}
        data:
        faults:
        """,
    )
    scenario = load_scenario(path)
    assert scenario.training.tokens == 300e9
    assert scenario.simulation.fold == "off"
    assert scenario.parallelism.sequence_parallel is True
    assert (scenario.training.recompute.mode, scenario.training.recompute.layers) == ("full", 4)
    assert scenario.training.offload.optimizer == "none"
    assert scenario.resolve().topology.node.nic.bandwidth == 12.5e9
    assert scenario.resolve().topology.network.oversubscription == 2
    assert scenario.faults == ()


def test_json_is_accepted_even_with_tabs(tmp_path):
    path = tmp_path / "case.json"
    path.write_text(json.dumps(MINIMAL, indent="\t"))
    assert load_scenario(path) == Scenario(**MINIMAL)


def test_settings_override_the_file(tmp_path):
    path = write(tmp_path, json.dumps(MINIMAL))
    scenario = load_scenario(
        path,
        [
            "training.micro_batch=2",
            "cluster.overrides.node.nic.bandwidth=100 Gbps",
            "parallelism.pp=2",
            "parallelism.stage_layers=[20, 12]",
            "economics.gpu_hour_usd=2.5",
        ],
    )
    assert scenario.training.micro_batch == 2
    assert scenario.cluster.overrides == {"node.nic.bandwidth": "100 Gbps"}
    assert scenario.parallelism.stage_layers == (20, 12)
    assert scenario.economics.gpu_hour_usd == 2.5
    assert load_scenario(path, {"training.micro_batch": 2}).training.micro_batch == 2


def test_an_inline_model_and_a_config_file(tmp_path):
    shape = {"layers": 4, "hidden": 512, "heads": 8, "kv_heads": 2, "vocab": 1000, "gated_mlp": True}
    assert Scenario(**MINIMAL | {"model": shape}).resolve().architecture.kv_heads == 2
    config = {"model_type": "gpt2", "n_layer": 4, "n_embd": 64, "n_head": 4, "vocab_size": 100, "n_positions": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    mapping = MINIMAL | {"model": "config.json", "training": {"seq_len": 128, "global_batch": 8}}
    path = write(tmp_path, json.dumps(mapping))
    assert load_scenario(path).resolve().architecture.layers == 4  # relative to the scenario, not to here


def test_copies_are_changed_validated_and_cheap():
    scenario = Scenario(**MINIMAL)
    wide = scenario.with_values({"cluster.nodes": 2, "parallelism.tp": 4})
    assert (wide.resolve().layout.dp, scenario.resolve().layout.dp) == (4, 8)
    assert wide.with_values({"cluster.nodes": 1, "parallelism.tp": 1}) == scenario
    with pytest.raises(ScenarioError, match="tp: 3 does not fit"):
        scenario.with_values({"parallelism.tp": 3})


def test_a_scenario_is_frozen_and_can_be_sent_to_another_process():
    scenario = Scenario(**MINIMAL)
    with pytest.raises(Exception, match="frozen"):
        scenario.name = "other"
    sent = pickle.loads(pickle.dumps(scenario))
    assert sent == scenario
    assert sent.resolve() == scenario.resolve()
    assert sent.with_values({"cluster.nodes": 2}).resolve().gpus == 16


def test_the_mapping_of_the_caller_is_not_shared():
    mapping = {**MINIMAL, "training": {"global_batch": 16}}
    scenario = Scenario(**mapping)
    mapping["training"]["global_batch"] = 8
    assert scenario.with_values({"cluster.nodes": 1}).training.global_batch == 16


def test_numpy_numbers_are_numbers():
    import numpy as np

    changed = Scenario(**MINIMAL).with_values({"cluster.nodes": np.int64(2), "training.tokens": np.float64(1e9)})
    assert (changed.cluster.nodes, changed.training.tokens) == (2, 1e9)


def test_uneven_stages_may_leave_a_stage_without_layers():
    """Llama 3's first and last chunks hold only the embedding and only the head (arXiv 2407.21783 §3.3.2)."""
    changed = Scenario(**MINIMAL | {"parallelism": {"pp": 2, "stage_layers": [32, 0]}})
    assert changed.parallelism.stage_layers == (32, 0)


def test_kv_heads_are_copied_when_tp_is_larger():
    shape = {"layers": 4, "hidden": 512, "heads": 8, "kv_heads": 2, "vocab": 1000}
    for tp in (1, 2, 4, 8):
        Scenario(**MINIMAL | {"model": shape, "parallelism": {"tp": tp}})


def test_tensor_parallelism_over_the_network_only_warns():
    scenario = Scenario(**MINIMAL | {"cluster": {"topology": "dgx-h100", "nodes": 2}, "parallelism": {"tp": 16}})
    assert len(scenario.warnings) == 1
    assert "tp: 16 spans nodes of 8 GPUs" in scenario.warnings[0]


def test_the_order_may_be_said_as_megatron_does():
    said = Scenario(**MINIMAL | {"parallelism": {"order": "tp-cp-ep-pp-dp"}})
    assert said.resolve().layout.order == ("tp", "cp", "ep", "pp", "dp")


@pytest.mark.parametrize("micro_batches, fine", [(4, True), (8, True), (2, True), (6, True), (9, False), (10, True)])
def test_interleaving_groups_micro_batches(micro_batches, fine):
    """m must be a multiple of max(1, m // pp), pp 4 here: Megatron's rule and torch's grouped one."""
    mapping = MINIMAL | {
        "parallelism": {"pp": 4, "vpp": 2, "schedule": "interleaved"},
        "training": {"global_batch": 2 * micro_batches},
    }
    if fine:
        assert Scenario(**mapping).resolve().layout.micro_batches == micro_batches
    else:
        with pytest.raises(ScenarioError, match="9 micro-batches"):
            Scenario(**mapping)


SHIPPED = {
    "quickstart": (8, 8),
    "gpt3-175b-a100-1024": (1024, 96),
    "gpt3-1t-a100-3072": (3072, 512),
    "llama3-405b-h100-16384": (16384, 16),
    "slow-network": (32, 1),
    "bubble-study": (8, 8),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenarios_are_valid_and_say_where_they_come_from(name):
    path = SCENARIOS / f"{name}.yaml"
    scenario = load_scenario(path)
    layout = scenario.resolve().layout
    assert (layout.ranks, layout.micro_batches) == SHIPPED[name]
    assert scenario.name == name
    assert scenario.warnings == ()
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("Lesson:" in line for line in comment)


def test_every_registered_schedule_can_be_asked_for(tmp_path):
    from llmsim.parallel.schedules import default_chunks, schedules

    for name in schedules():
        chunks = default_chunks(name)
        plan = {"pp": 4, "vpp": chunks, "schedule": name, "stage_layers": [32] + [0] * (4 * chunks - 1)}
        assert Scenario(**MINIMAL | {"parallelism": plan}).resolve().schedule == name


def test_a_schedule_table_lies_beside_the_scenario(tmp_path):
    rows = ["rank,kind,stage,micro_batch", "0,F,0,0", "0,BW,0,0", "1,F,1,0", "1,BW,1,0"]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    mapping = MINIMAL | {"parallelism": {"pp": 2, "schedule": "mine.csv"}, "training": {"global_batch": 4}}
    path = write(tmp_path, json.dumps(mapping))
    assert load_scenario(path).resolve().schedule == str(tmp_path / "mine.csv")
    with pytest.raises(ScenarioError, match="micro_batches: 2 is asked for"):
        load_scenario(path, ["training.global_batch=8"])
