"""Offloading: what copies and CPU steps cost, what they wait for, and what is left on the GPU."""

import pytest

import llmsim
from llmsim.errors import ScenarioError
from llmsim.studies.remedies import remedies, shortfalls

BASE = {
    "name": "offload",
    "model": {"layers": 6, "hidden": 2048, "heads": 16, "vocab": 32000, "tied_embeddings": True},
    "cluster": {"topology": "dgx-a100", "nodes": 1, "gpus_per_node": 8},
    "parallelism": {"zero": 2},
    "training": {"seq_len": 1024, "global_batch": 32, "micro_batch": 4, "recompute": "full", "grad_dtype": "bf16"},
}
PCIE, SHARE = 31.5e9, 0.87  # dgx-a100, and the share that copies reach


def run(**values):
    scenario = llmsim.Scenario(**BASE).with_values(values)
    return llmsim.simulate(scenario)


def busy(trace, name):
    rows = trace[trace["name"] == name]
    return float((rows["end_s"] - rows["start_s"]).sum())


def test_a_cpu_step_takes_its_traffic_over_the_share_of_memory_bandwidth():
    result = run(**{"training.offload.optimizer": "cpu"})
    parameters = result.metrics["parameters"]
    # 30 bytes a parameter with 16-bit gradients less 2; four GPUs share the memory of a socket.
    expected = parameters / 8 * 28 * 4 / (0.47 * 190e9)
    assert busy(result.trace, "adam on CPU") == pytest.approx(expected, rel=1e-6)
    assert result.metrics["time_breakdown"]["offload"] >= expected * 0.99


def test_gpus_behind_one_pcie_switch_share_its_uplink():
    offloaded = {"training.offload.optimizer": "cpu"}
    one = run(**offloaded, **{"cluster.gpus_per_node": 1, "training.global_batch": 4})
    parameters = one.metrics["parameters"]
    assert busy(one.trace, "gradients to CPU") == pytest.approx(parameters * 2 / (PCIE * SHARE), rel=1e-3)
    eight = run(**offloaded)  # two GPUs a switch
    assert busy(eight.trace, "gradients to CPU") == pytest.approx(parameters / 8 * 2 * 2 / (PCIE * SHARE), rel=1e-3)


def test_disks_set_the_pace_of_a_step_whose_states_they_hold():
    result = run(**{"training.offload.optimizer": "nvme"})
    written = result.metrics["parameters"] * 12 / (0.9 * 12e9)  # all GPUs write to the same disks
    assert busy(result.trace, "adam on CPU") == pytest.approx(written, rel=1e-6)


@pytest.mark.parametrize("bucket", [1, 2])
def test_what_goes_out_comes_back_and_hides_beside_computation(bucket):
    values = {"training.offload.activations": "cpu", "training.global_batch": 32 * bucket}
    result = run(**values)
    trace = result.trace
    out, back = (trace[trace["name"] == f"activations {way}"] for way in ("out", "back"))
    assert out["bytes"].sum() == back["bytes"].sum() > 0
    assert len(out) == 5 * bucket  # the last layer's stay
    assert set(out["kind"]) == {"offload"}
    plain = run(**{"training.global_batch": 32 * bucket})
    assert result.metrics["iteration_time_s"] < 1.05 * plain.metrics["iteration_time_s"]
    assert result.metrics["memory"]["peak_gib"] < plain.metrics["memory"]["peak_gib"]


def test_slow_links_are_exposed():
    values = {"training.offload.activations": "cpu", "training.recompute": "none", "training.attention": "flash"}
    fast = run(**values)
    slow = run(**values, **{"cluster.overrides": {"node.pcie.bandwidth": "4 GB/s"}})
    assert slow.metrics["time_breakdown"]["offload"] > 5 * fast.metrics["time_breakdown"]["offload"]


@pytest.mark.parametrize(
    "values",
    [
        {"training.offload.optimizer": "cpu"},
        {"parallelism.zero": 3, "training.offload.optimizer": "cpu", "training.offload.parameters": "cpu"},
        {"parallelism.zero": 1, "training.offload.activations": "nvme", "parallelism.pp": 2},
    ],
)
def test_folding_changes_nothing(values):
    folded = run(**values).metrics
    single = run(**values, **{"simulation.fold": "off"}).metrics
    assert folded["iteration_time_s"] == pytest.approx(single["iteration_time_s"], rel=1e-9)
    for name, seconds in single["time_breakdown"].items():
        assert folded["time_breakdown"][name] == pytest.approx(seconds, rel=1e-6, abs=1e-9)
    assert sum(folded["time_breakdown"].values()) == pytest.approx(folded["iteration_time_s"], rel=1e-9)


def test_zero_offload_leaves_two_bytes_a_parameter():
    result = run(**{"training.offload.optimizer": "cpu"})
    stage = result.metrics["memory"]["per_stage"][0]
    states = sum(stage[f"{name}_gib"] for name in ("parameters", "gradients", "optimizer")) * 2**30
    assert states == pytest.approx(2 * result.metrics["parameters"], rel=1e-6)


def test_zero_infinity_leaves_no_states():
    values = {"parallelism.zero": 3, "training.accumulate_locally": False}
    result = run(**values, **{"training.offload.optimizer": "cpu", "training.offload.parameters": "cpu"})
    stage = result.metrics["memory"]["per_stage"][0]
    assert stage["parameters_gib"] == stage["gradients_gib"] == stage["optimizer_gib"] == 0
    fetched = result.trace[result.trace["name"] == "parameters from outside"]
    # Each rank brings its shard of every parameter twice, for the forward and for the backward; a tied matrix is
    # brought for both of its uses.
    shards = 2 * result.metrics["parameters"] / 8 * 2
    assert fetched["bytes"].sum() == pytest.approx(shards, rel=0.25)
    assert fetched["bytes"].sum() >= shards


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"parallelism.zero": 0, "training.offload.optimizer": "cpu"}, "training.offload.optimizer"),
        ({"training.offload.parameters": "cpu", "training.offload.optimizer": "cpu"}, "training.offload.parameters"),
        ({"parallelism.zero": 3, "training.offload.parameters": "cpu"}, "training.offload.parameters"),
        ({"cluster.overrides": {"node.nvme.capacity": 0}, "training.offload.optimizer": "nvme"}, "nvme"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(values, key):
    with pytest.raises(ScenarioError) as caught:
        run(**values)
    assert key in str(caught.value) and "expected" in str(caught.value) and "\n" not in str(caught.value)


GIB = 2.0**30


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_a_node_keeps_its_share_of_states_and_gradients_in_its_memory(zero, nodes):
    size = {"parallelism.zero": zero, "cluster.nodes": nodes, "training.global_batch": 64}
    result = run(**{"training.offload.optimizer": "cpu", **size})
    memory, parameters = result.metrics["memory"], result.metrics["parameters"]
    assert memory["cpu"]["optimizer_gib"] * GIB == pytest.approx(12 * parameters / nodes)
    assert memory["cpu"]["gradients_gib"] * GIB == pytest.approx(2 * parameters / nodes)
    assert memory["cpu"]["capacity_gib"] * GIB == 2e12
    assert "nvme" not in memory


def test_disks_keep_states_and_the_cpu_the_gradients_it_reads():
    values = {"parallelism.zero": 3, "training.offload.optimizer": "nvme", "training.offload.parameters": "nvme"}
    result = run(**values)
    memory, parameters = result.metrics["memory"], result.metrics["parameters"]
    assert memory["nvme"]["peak_gib"] * GIB == pytest.approx((12 + 2) * parameters)
    assert memory["cpu"]["peak_gib"] * GIB == pytest.approx(2 * parameters)


def test_a_cpu_that_updates_fp32_parameters_has_a_copy_of_them():
    values = {"training.precision": "fp32", "training.grad_dtype": "fp32", "training.offload.optimizer": "cpu"}
    result = run(**values)
    assert result.metrics["memory"]["cpu"]["peak_gib"] * GIB == pytest.approx(16 * result.metrics["parameters"])


def test_activations_of_all_micro_batches_in_flight_are_away():
    values = {"training.offload.activations": "cpu", "parallelism.pp": 2, "parallelism.zero": 1}
    memory = run(**values).metrics["memory"]["cpu"]
    # A layer keeps its input only. Four ranks a stage; the first has two micro-batches in flight, the last one; of the
    # three layers of either the last stays.
    one = 1024 * 4 * 2048 * 2
    assert memory["peak_gib"] * GIB == memory["activations_gib"] * GIB == pytest.approx(4 * (2 + 1) * 2 * one)


def test_what_a_node_has_no_room_for_does_not_fit_and_says_where():
    values = {"training.offload.optimizer": "cpu", "cluster.overrides": {"node.cpu.memory": "4 GB"}}
    memory = run(**values).metrics["memory"]
    (short,) = shortfalls(memory)
    assert not memory["fits"] and not memory["cpu"]["fits"] and memory["peak_gib"] < memory["capacity_gib"]
    assert short.missing_gib == pytest.approx(14 * run().metrics["parameters"] / GIB - 4e9 / GIB)
    assert "node 0 needs" in str(short) and "GiB of CPU memory" in str(short) and "optimizer states" in str(short)


def test_the_way_out_of_a_full_node_is_the_gpu_or_its_disks():
    values = {"training.offload.optimizer": "cpu", "cluster.overrides": {"node.cpu.memory": "4 GB"}}
    found = remedies(llmsim.Scenario(**BASE).with_values(values))
    assert {"training.offload.optimizer": "none"} in [each.settings for each in found]
    disks = {**values, "cluster.overrides": {"node.cpu.memory": "4 GB", "node.nvme.capacity": "3 GB"}}
    assert [
        short.place for short in shortfalls(run(**{**disks, "training.offload.optimizer": "nvme"}).metrics["memory"])
    ] == ["nvme"]


def test_without_offloading_nodes_are_not_asked():
    memory = run(**{"cluster.overrides": {"node.cpu.memory": "1 MB"}}).metrics["memory"]
    assert memory["fits"] and "cpu" not in memory and "nvme" not in memory
