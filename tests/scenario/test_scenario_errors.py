"""Every mistake is one sentence: where, which key, which value, what is accepted. Never a traceback."""

import textwrap
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.cli import main
from llmsim.errors import ScenarioError, UserError
from llmsim.scenario import Scenario, load_scenario
from llmsim.scenario.complaints import known_keys
from llmsim.scenario.outside import OUTSIDE

GOOD = """\
name: good
model: llama2-7b
cluster:
  topology: dgx-h100
  nodes: 2
parallelism:
  tp: 2
  pp: 2
training:
  seq_len: 4096
  global_batch: 32
  micro_batch: 1
"""

# (settings on top of GOOD, the key at the start of the sentence, what else the sentence says)
BAD = [
    # values of one key
    ({"parallelism.tp": 0}, "parallelism.tp", ["0 is too small", "at least 1"]),
    ({"parallelism.tp": -2}, "parallelism.tp", ["-2", "at least 1"]),
    ({"parallelism.tp": "8"}, "parallelism.tp", ["'8'", "whole number"]),
    ({"parallelism.tp": 2.5}, "parallelism.tp", ["2.5", "whole number"]),
    ({"parallelism.tp": True}, "parallelism.tp", ["true", "whole number"]),
    ({"parallelism.tp": None}, "parallelism.tp", ["null", "whole number"]),
    ({"cluster.nodes": [1, 2]}, "cluster.nodes", ["[1, 2]", "whole number"]),
    ({"cluster.nodes": 10**18}, "cluster.nodes", ["too large"]),
    ({"training.global_batch": 0}, "training.global_batch", ["0 is too small"]),
    ({"training.global_batch": 8 * 10**8}, "training.global_batch", ["the work of", "passes", "at most 200,000"]),
    (
        {"training.global_batch": 4 * 2000, "simulation.fold": "off"},
        "training.global_batch",
        ["8 ranks of a stage", "kernels of 32 layers", "simulation.detail block", "simulation.fold auto"],
    ),
    ({"simulation.iterations": 10**8}, "simulation.iterations", ["too large", "at most 1,000"]),
    ({"training.precision": "bf17"}, "training.precision", ["'bf17'", "fp32, tf32", "did you mean 'bf16'"]),
    ({"training.attention": "flsh"}, "training.attention", ["flash3, unfused", "did you mean 'flash'"]),
    ({"training.recompute": "ful"}, "training.recompute.mode", ["'ful'", "did you mean 'full'"]),
    (
        {"training.recompute": {"mode": "selective", "modules": ["layernom"]}},
        "training.recompute.modules",
        ["'layernom'", "core_attn, layernorm, mla_up_proj, mlp, moe, moe_act, shared_experts", "'layernorm'"],
    ),
    ({"training.recompute": {"mode": "selective", "modules": "mlp"}}, "training.recompute.modules", ["not a list"]),
    ({"training.activation_input": "fp16"}, "training.activation_input", ["'fp16'", "fp8"]),
    ({"training.recompute": {"mode": "full", "layer": 2}}, "training.recompute.layer", ["did you mean 'layers'"]),
    ({"model": "meta-llama/Llama-3-8B"}, "model", ["no file", "config.json", "did you mean 'llama3-8b'"]),
    ({"parallelism.schedule": "1F1B"}, "parallelism.schedule", ["did you mean '1f1b'"]),
    ({"training.optimizer": "adamw"}, "training.optimizer", ["adam, sgd", "did you mean 'adam'"]),
    ({"training.tokens": "300 giga"}, "training.tokens", ["'300 giga'", "300e9"]),
    ({"training.tokens": -1}, "training.tokens", ["-1", "more than 0"]),
    ({"training.tokens": float("nan")}, "training.tokens", ["not finite"]),
    ({"training.grad_reduction": "reduce_scatter"}, "training.grad_reduction", ["zero 0", "all_reduce"]),
    ({"training.grad_reduction": "all_reduce", "parallelism.zero": 3}, "training.grad_reduction", ["zero 3", "auto"]),
    ({"training.fused": "maybe"}, "training.fused", ["'maybe'", "true or false"]),
    ({"training.offload": {"optimizer": "disk"}}, "training.offload.optimizer", ["none, cpu, nvme"]),
    ({"training": 5}, "training", ["5 is not a mapping", "global_batch"]),
    ({"parallelism.zero": 4}, "parallelism.zero", ["4", "at most 3"]),
    ({"parallelism.order": ["tp", "pp"]}, "parallelism.order", ["permutation of [tp, cp, ep, dp, pp]"]),
    ({"parallelism.stage_layers": 16}, "parallelism.stage_layers", ["16 is not a list"]),
    ({"parallelism.stage_layers": "balance"}, "parallelism.stage_layers", ["'balance' is not a list", "or balanced"]),
    ({"parallelism.stage_layers": [16, -16]}, "parallelism.stage_layers[1]", ["-16"]),
    ({"simulation.detail": "fine"}, "simulation.detail", ["kernel, block"]),
    ({"simulation.jitter": -0.1}, "simulation.jitter", ["-0.1", "at least 0"]),
    ({"economics.pue": 0.9}, "economics.pue", ["at least 1"]),
    ({"name": ""}, "name", ["''", "non-empty"]),
    ({"model": 7}, "model", ["7", "config.json"]),
    ({"faults": "none"}, "faults", ["'none' is not a list"]),
    ({"faults": [{"kind": "slow_gpus"}]}, "faults[0].kind", ["did you mean 'slow_gpu'"]),
    ({"faults": [{"gpu": "node0.gpu0"}]}, "faults[0].kind", ["missing"]),
    ({"cluster.overrides": {"node.nic": {}}}, "cluster.overrides", ["node.nic: {} changes nothing"]),
    ({"cluster.overrides": {"network": {"latency": {}}}}, "cluster.overrides", ["network.latency: {} changes nothing"]),
    ({"cluster.overrides": [1]}, "cluster.overrides", ["node.nic.bandwidth"]),
    # keys
    ({"training.micro_bach": 1}, "training.micro_bach", ["unknown key", "did you mean 'micro_batch'"]),
    ({"parallelism.micro_batch": 1}, "parallelism.micro_batch", ["did you mean 'training.micro_batch'"]),
    ({"tp": 8}, "tp", ["unknown key", "did you mean 'parallelism.tp'"]),
    ({"trainning": {}}, "trainning", ["did you mean 'training'"]),
    ({"frobnicate": 1}, "frobnicate", ["unknown key", "known: name"]),
    ({"training.overlap": {"grad_reduc": True}}, "training.overlap.grad_reduc", ["did you mean 'grad_reduce'"]),
    # names
    ({"model": "llama2-7bb"}, "model", ["'llama2-7bb'", "did you mean 'llama2-7b'"]),
    ({"model": "nowhere/config.json"}, "model", ["nowhere/config.json"]),
    ({"model": {"layers": 4, "hidden": 100, "heads": 7, "vocab": 9}}, "model.heads", ["7 does not divide hidden 100"]),
    ({"model": {"layres": 4, "hidden": 64, "heads": 4, "vocab": 9}}, "model.layres", ["did you mean 'layers'"]),
    ({"cluster.topology": "dgx-h10"}, "cluster.topology", ["did you mean 'dgx-h100'"]),
    ({"cluster.topology": "no/such.yaml"}, "cluster.topology", ["no/such.yaml"]),
    (
        {"cluster.overrides": {"node.nic.bandwith": 1}},
        "cluster.overrides.node.nic.bandwith",
        ["did you mean 'node.nic.bandwidth'"],
    ),
    (
        {"cluster.overrides.node.nic.bandwidth": "100 GB"},
        "cluster.overrides.node.nic.bandwidth",
        ["'100 GB'", "400 Gbps"],
    ),
    ({"cluster.overrides": {"node.gpu": "a10"}}, "cluster.overrides.node.gpu", ["'a10'"]),
    ({"parallelism.schedule": "1f1bb"}, "parallelism.schedule", ["'1f1bb'", "did you mean '1f1b'"]),
    # keys against each other and against the cluster
    ({"cluster.gpus_per_node": 9}, "cluster.gpus_per_node", ["9 is more than the 8 GPUs"]),
    ({"parallelism.pp": 3}, "parallelism.pp", ["tp 2 × cp 1 × pp 3 = 6", "16 GPUs used (2 nodes × 8)"]),
    ({"parallelism.dp": 8}, "parallelism.dp", ["tp 2 × cp 1 × pp 2 × dp 8 = 32", "16 GPUs", "expected dp 4"]),
    ({"parallelism.tp": 32}, "parallelism.tp", ["32 does not fit", "16 GPUs"]),
    ({"training.global_batch": 30}, "training.global_batch", ["30 is not a multiple", "dp 4 = 4", "28 or 32"]),
    ({"training.global_batch": 2}, "training.global_batch", ["2 is not a multiple", "expected such as 4"]),
    ({"training.micro_batch": 3}, "training.global_batch", ["micro_batch 3 × dp 4 = 12"]),
    ({"training.seq_len": 4095}, "training.seq_len", ["4095 is not a multiple", "sequence_parallel"]),
    (
        {"cluster.nodes": 3, "parallelism.tp": 3, "training.seq_len": 3072, "training.global_batch": 24},
        "parallelism.tp",
        ["3 does not divide the 32 attention heads of llama2-7b", "such as 2"],
    ),
    (
        {"model": {"layers": 4, "hidden": 960, "heads": 60, "kv_heads": 6, "vocab": 100}, "parallelism.tp": 4},
        "parallelism.tp",
        ["4 and the 6 key/value heads", "do not divide each other"],
    ),
    (
        {"model": {"layers": 4, "hidden": 512, "heads": 8, "ffn_hidden": 1001, "vocab": 100}},
        "parallelism.tp",
        ["2 does not divide ffn_hidden 1001"],
    ),
    (
        {"model": {"layers": 7, "hidden": 512, "heads": 8, "vocab": 100}},
        "parallelism.pp",
        ["2 × vpp 1 = 2 virtual stages", "the 7 layers", "stage_layers"],
    ),
    ({"parallelism.stage_layers": [16, 8, 8]}, "parallelism.stage_layers", ["has 3 entries", "= 2"]),
    ({"parallelism.stage_layers": [16, 15]}, "parallelism.stage_layers", ["adds up to 31", "32 layers"]),
    ({"parallelism.vpp": 2}, "parallelism.vpp", ["2 does not fit schedule '1f1b'", "interleaved"]),
    ({"parallelism.schedule": "interleaved"}, "parallelism.vpp", ["at least 2 chunks"]),
    (
        {"parallelism": {"tp": 2, "pp": 1, "vpp": 2, "schedule": "interleaved"}},
        "parallelism.vpp",
        ["pp is 1"],
    ),
    (
        {"parallelism.schedule": "interleaved", "parallelism.vpp": 2, "training.global_batch": 20},
        "parallelism.schedule",
        ["5 micro-batches over 2 stages"],
    ),
    ({"parallelism.schedule": "zb-v"}, "parallelism.vpp", ["1 does not fit schedule 'zb-v'", "expected 2"]),
    ({"parallelism.schedule": "dualpipe", "parallelism.vpp": 2}, "parallelism.vpp", ["dualpipe", "expected 1"]),
    (
        {"parallelism.schedule": "dualpipe", "training.global_batch": 8},
        "parallelism.schedule",
        ["at least 2 micro-batches per stage", "expected at least 4"],
    ),
    ({"parallelism.schedule": "nowhere.csv"}, "parallelism.schedule", ["nowhere.csv: there is no such file"]),
    (
        {"training.recompute": {"mode": "full", "layers": 17}},
        "training.recompute.layers",
        ["17 is more than the 16 layers"],
    ),
    (
        {"training.recompute": {"mode": "full", "modules": ["mlp"]}},
        "training.recompute.modules",
        ["[mlp] goes with mode selective only", "full"],
    ),
    (
        {"training.recompute": {"mode": "selective", "layers": 2}},
        "training.recompute.layers",
        ["mode full only", "selective"],
    ),
    ({"parallelism.hsdp": 2}, "parallelism.hsdp", ["zero 0"]),
    (
        {"training.offload": {"optimizer": "cpu"}, "training.optimizer": "muon", "parallelism.zero": 1},
        "training.offload.optimizer",
        ["'cpu' with muon", "another optimizer"],
    ),
    ({"parallelism.hsdp": 3, "parallelism.zero": 3}, "parallelism.hsdp", ["3 does not divide dp 4"]),
    (
        {"training.precision": "fp8", "cluster.topology": "dgx-a100"},
        "training.precision",
        ["'fp8'", "A100", "expected fp32, tf32, fp16, bf16"],
    ),
    ({"training.precision": "bf16", "cluster.topology": "dgx-v100"}, "training.precision", ["V100", "fp32, fp16"]),
    ({"parallelism.ep": 2}, "parallelism.ep", ["needs a mixture of experts"]),
    ({"parallelism.ep": 3}, "parallelism.ep", ["3 does not divide tp × cp × dp / etp = 2 × 1 × 4 / 1 = 8"]),
    ({"parallelism.cp": 2, "training.seq_len": 4098}, "training.seq_len", ["2 × cp = 4"]),
    ({"faults": [{"kind": "slow_gpu", "factor": 0.5}]}, "faults[0].gpu", ["missing", "slow_gpu needs it"]),
    ({"faults": [{"kind": "slow_gpu", "gpu": "node0.gpu1"}]}, "faults[0].factor", ["missing", "0.8"]),
    (
        {"faults": [{"kind": "slow_gpu", "gpu": "node7.gpu1", "factor": 0.5}]},
        "faults[0].gpu",
        ["'node7.gpu1'", "node0.gpu0 to node1.gpu7"],
    ),
    ({"faults": [{"kind": "node_down", "node": "node2"}]}, "faults[0].node", ["'node2'", "node0 to node1"]),
    ({"faults": [{"kind": "link_down", "link": "node0.nic99"}]}, "faults[0].link", ["node0.nic99"]),
    (
        {"faults": [{"kind": "slow_gpu", "gpu": "node0.gpu0", "node": "node0", "factor": 0.5}]},
        "faults[0].node",
        ["does not go with kind slow_gpu"],
    ),
    (
        {"faults": [{"kind": "gpu_down", "gpu": "node0.gpu0", "from": "5 s", "until": 2}]},
        "faults[0].until",
        ["2 s is not after from 5 s"],
    ),
    ({"faults": [{"kind": "slow_gpu", "gpu": "node0.gpu0", "factor": 1.5}]}, "faults[0].factor", ["1.5", "at most 1"]),
]


def sentences(error):
    return str(error).splitlines()


@pytest.mark.parametrize("settings, key, says", BAD, ids=[f"{i}-{key}" for i, (_, key, _) in enumerate(BAD)])
def test_a_mistake_is_a_sentence(settings, key, says):
    good = load_from_text(GOOD)
    with pytest.raises(ScenarioError) as caught:
        good.with_values(settings)
    about = [line for line in sentences(caught.value) if f"{key}: " in line]
    assert about, f"no sentence names {key}: {caught.value}"
    assert any(all(part in line for part in says) for line in about), about
    assert all(len(line) < 400 for line in about)


def load_from_text(text):
    return Scenario(**yaml.safe_load(text))


def test_there_are_enough_of_them():
    assert len(BAD) >= 40


def bad_file(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_sentences_name_file_and_line(tmp_path):
    path = bad_file(tmp_path, GOOD.replace("pp: 2", "pp: two").replace("micro_batch: 1", "micro_bach: 1"))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert sentences(caught.value) == [
        f"{path}:8: parallelism.pp: 'two' is not a whole number; expected a whole number of at least 1",
        f"{path}:12: training.micro_bach: unknown key; did you mean 'micro_batch'?",
    ]


def test_faults_between_keys_are_reported_together(tmp_path):
    text = GOOD.replace("tp: 2", "tp: 8").replace("global_batch: 32", "global_batch: 31\n  recompute: {layers: 3}")
    path = bad_file(tmp_path, text.replace("seq_len: 4096", "seq_len: 4097") + "parallelisms: {}\n")
    with pytest.raises(ScenarioError, match="parallelisms: unknown key"):
        load_scenario(path)
    path = bad_file(tmp_path, text.replace("pp: 2", "pp: 1").replace("seq_len: 4096", "seq_len: 4097"))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    found = [line.split(": ")[1] for line in sentences(caught.value)]
    assert found == ["training.global_batch", "training.seq_len", "training.recompute.layers"]


def test_a_setting_is_blamed_on_the_command_line(tmp_path):
    path = bad_file(tmp_path, GOOD)
    with pytest.raises(ScenarioError, match=r"^--set parallelism.tp: 0 is too small"):
        load_scenario(path, ["parallelism.tp=0"])


@pytest.mark.parametrize(
    "setting, says",
    [
        ("parallelism.tp", "expected key=value"),
        ("=3", "expected key=value"),
        ("parallelism.stage_layers=[1, 2", "not YAML"),
        ("model.layers=3", "model is 'llama2-7b', which has no keys inside"),
        ("parallelism.pp=2x", "'2x' is not a whole number"),
        ("paralelism.pp=2", "paralelism: unknown key; did you mean 'parallelism'"),
        ("faults.0.factor=2", "faults: {'0': {'factor': 2}} is not a list"),
    ],
)
def test_bad_settings(tmp_path, setting, says):
    with pytest.raises(ScenarioError) as caught:
        load_scenario(bad_file(tmp_path, GOOD), [setting])
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "a scenario is a mapping"),
        ("- a\n- b\n", "a scenario is a mapping"),
        ("just words\n", "a scenario is a mapping"),
        ("name: [1, 2\n", "this is not YAML"),
        ("name: a\nmodel: b: c\n", ":2: this is not YAML"),
        ("name: a\n\tmodel: b\n", ":2: this line is indented with a tab"),
        ("name: a\nname: b\n", ":2: name: this key is given twice, first on line 1"),
        ("training:\n  tp: 1\n  tp: 2\n", ":3: training.tp: this key is given twice"),
        ("&x {name: *x}\n", "contains itself"),
        ("name: a\nmodel: !!python/object:os.system {}\n", "could not determine a constructor"),
        ("name: a\n", "model: missing"),
        ('{"model_type": "llama", "hidden_size": 4096}', "this is a Hugging Face config.json"),
        ("1: 2\n", "1: unknown key"),
        ("? [a, b]\n: 1\n", "bad.yaml"),
        ("name: a\nmodel: gpt3-175b\ncluster: \ntraining:\n", "cluster.topology: missing"),
    ],
)
def test_files_that_are_no_scenarios(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ScenarioError, match="there is no such scenario file"):
        load_scenario(tmp_path / "no.yaml")
    with pytest.raises(ScenarioError, match="this is a folder"):
        load_scenario(tmp_path)
    with pytest.raises(ScenarioError, match=r"did you mean 'quickstart'"):
        load_scenario("elsewhere/quickstart.yaml")
    with pytest.raises(ScenarioError, match=r"zzz: there is no such scenario file; `llmsim scenarios` lists"):
        load_scenario("zzz")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ScenarioError, match="UTF-8"):
        load_scenario(tmp_path / "binary.yaml")
    (tmp_path / "bad.json").write_text("{\n\t'name': 1")
    with pytest.raises(ScenarioError, match=r"bad.json:2: this is not JSON"):
        load_scenario(tmp_path / "bad.json")


def test_python_mappings_get_the_same_sentences():
    with pytest.raises(UserError) as caught:
        Scenario(name="x", model="llama2-7b", cluster={"topology": "dgx-h100", "nodes": 0}, training={})
    assert sentences(caught.value) == [
        "cluster.nodes: 0 is too small; expected a whole number of at least 1",
        "training.global_batch: missing; expected something like 512",
    ]


@pytest.mark.parametrize("settings", [BAD[0], BAD[33], BAD[39], BAD[50], BAD[53]])
def test_the_command_line_ends_with_status_2_and_no_traceback(tmp_path, capsys, settings):
    path = bad_file(tmp_path, GOOD)
    arguments = [f"--set={key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in settings[0].items()]
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(path), *arguments])
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    assert "Traceback" not in err
    assert settings[1] in err


def test_a_missing_key_is_named_as_users_write_it():
    with pytest.raises(ScenarioError, match=r"background\[0\]\.from: missing; expected something like node0"):
        load_from_text(GOOD).with_values({"background": [{}]})


odd_words = st.sampled_from(["", "none", "8", "1e400", "[", "ü"])
odd_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 130) | st.floats() | odd_words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["mode", "kind", "gpu", "x"]), inner),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(known_keys(Scenario)), odd_values, min_size=1, max_size=3))
def test_whatever_is_said_the_answer_is_a_scenario_or_sentences(values):
    good = load_from_text(GOOD)
    try:
        changed = good.with_values(values)
    except ScenarioError as error:
        assert str(error)
        assert all(": " in line for line in sentences(error))
    else:
        assert changed.resolve().gpus == changed.resolve().layout.ranks


@pytest.mark.parametrize(
    "changes, key, says",
    [
        ({"training.mode": "inference"}, "training.mode", "inference is not modelled; a run of training is"),
        ({"training.kv_cache": True}, "training.kv_cache", "key/value cache of inference is not modelled"),
        ({"training.rollouts": 8}, "training.rollouts", "reinforcement learning with its rollouts is not modelled"),
        ({"training": {"method": "GRPO", "global_batch": 32}}, "training.method", "reinforcement learning"),
        ({"inference": {"batch": 1}}, "inference", "inference is not modelled"),
        ({"training.recompute.mode": "inference"}, "training.recompute.mode", "expected one of none, selective, full"),
        ({"speculative-decoding": {}}, "speculative-decoding", "speculative decoding is not modelled"),
    ],
)
def test_what_is_outside_is_not_modelled_and_no_spelling_mistake(changes, key, says):
    with pytest.raises(ScenarioError) as caught:
        load_from_text(GOOD).with_values(changes)
    (line,) = sentences(caught.value)
    assert line.startswith(f"{key}: ") and says in line and "did you mean" not in line


def test_the_page_of_what_is_outside_lists_it_all():
    page = Path("docs/outside.md").read_text()
    for entry in OUTSIDE:
        words = ", ".join(f"`{word}`" for word in entry.words)
        assert f"| {entry.what} | {words} | {entry.near} |" in page


def test_replicas_of_experts_are_counted_in_the_order_at_hand():
    """With ep outside dp the copies of an expert are neighbours: 2 copies fill 8 places, and 16 experts need not."""
    outer = {
        "model": {"layers": 4, "hidden": 512, "heads": 8, "vocab": 100,
                  "moe": {"experts": 6, "top_k": 2, "expert_ffn_hidden": 128}},
        "cluster.nodes": 3, "parallelism": {"zero": 1, "ep": 6, "hsdp": 8, "order": "tp-cp-dp-ep-pp"},
        "training.global_batch": 24,
    }  # fmt: skip
    good = load_from_text(GOOD)
    assert good.with_values(outer).resolve().layout.expert_shard == 4
    inner = outer | {"parallelism": outer["parallelism"] | {"order": "tp-cp-ep-dp-pp"}}
    with pytest.raises(ScenarioError, match=r"8 places for experts in a replica; expected a multiple or .* of ep 6"):
        good.with_values(inner)
    three = outer | {"parallelism": outer["parallelism"] | {"ep": 2, "hsdp": 8}}
    with pytest.raises(ScenarioError, match="the 12 copies of an expert, which are neighbours in this order"):
        good.with_values(three)


def test_a_misspelt_key_that_is_needed_is_one_mistake():
    text = GOOD.replace("global_batch", "globalbatch").replace("topology:", "topologie:")
    with pytest.raises(ScenarioError) as caught:
        load_from_text(text)
    assert sentences(caught.value) == [
        "cluster.topologie: unknown key; did you mean 'topology'?",
        "training.globalbatch: unknown key; did you mean 'global_batch'?",
    ]


def test_a_key_of_another_name_does_not_hide_what_is_missing():
    with pytest.raises(ScenarioError) as caught:
        load_from_text(GOOD.replace("global_batch", "frobnicate"))
    assert len(sentences(caught.value)) == 2
