"""Memory of a run: published model states, and invariants of what is replayed."""

import numpy as np
import pytest
from folders import ROOT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmsim.errors import UserError
from llmsim.memory.states import Keeping
from llmsim.program.stages.shares import Shares
from llmsim.scenario import Scenario, load_scenario
from llmsim.simulation import simulate

GIB = 2.0**30
SCENARIOS = ROOT / "scenarios"


def scenario(parallelism=None, training=None, detail="block", nodes=1, model="gpt2-xl"):
    return Scenario(
        name="t",
        model=model,
        cluster={"topology": "dgx-a100", "nodes": nodes},
        parallelism=parallelism or {},
        training={"seq_len": 1024, "global_batch": 64, "micro_batch": 1} | (training or {}),
        simulation={"detail": detail},
    )


def memory(**options):
    return simulate(scenario(**options)).metrics["memory"]


def stage(number=0, **options):
    return memory(**options)["per_stage"][number]


# -- model states --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero, published", [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_zero_figure_1(zero, published):
    """Rajbhandari et al. 2020, figure 1: 7.5 B parameters on 64 GPUs, fp16 and Adam, in 10⁹ bytes."""
    keeping = Keeping(weight=2, gradient=2, optimizer="adam", zero=zero, ranks=64)
    assert keeping.of(Shares(7.5e9, 0.0)).total / 1e9 == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize("zero, shared", [(0, 0), (1, 12), (2, 16), (3, 18)])
def test_a_run_shares_what_zero_says(zero, shared):
    """16-bit weights, fp32 gradients, 12 bytes of optimizer: of 18 bytes a parameter, `shared` are split over 8."""
    held = stage(parallelism={"zero": zero}, training={"grad_dtype": "fp32", "accumulate_locally": False})
    states = sum(held[f"{name}_gib"] for name in ("parameters", "gradients", "optimizer")) * GIB
    parameters = simulate(scenario()).metrics["parameters"]
    each = 16 if zero == 3 else 18  # the shard of the weights is the master copy
    assert states == pytest.approx(parameters * ((18 - shared) * (zero < 3) + min(shared, each) / 8), rel=0.002)


def test_optimizers_keep_what_they_are_known_for():
    held = {
        name: stage(training={"optimizer": name})["optimizer_gib"]
        for name in ("adam", "adam16bit", "adam8bit", "sgd", "muon", "adafactor")
    }
    parameters = simulate(scenario()).metrics["parameters"] / GIB
    assert held["adam"] == pytest.approx(12 * parameters, rel=0.01)
    assert held["adam16bit"] == pytest.approx(8 * parameters, rel=0.01)
    assert held["adam8bit"] == pytest.approx(6 * parameters, rel=0.01)
    assert held["sgd"] == held["muon"] == pytest.approx(8 * parameters, rel=0.01)
    assert held["adafactor"] == pytest.approx(4 * parameters, rel=0.01)


def test_precisions():
    wide, narrow = (stage(training={"precision": p}) for p in ("fp32", "bf16"))
    assert wide["parameters_gib"] == 2 * narrow["parameters_gib"]
    assert wide["optimizer_gib"] == pytest.approx(narrow["optimizer_gib"] * 2 / 3)  # no master copy beside fp32 weights
    assert wide["activations_gib"] > 1.9 * narrow["activations_gib"]
    half = stage(training={"grad_dtype": "bf16"})
    assert half["gradients_gib"] == pytest.approx(narrow["gradients_gib"] / 2)


def test_a_tied_embedding_is_held_at_both_ends_of_a_pipeline():
    whole = stage()["parameters_gib"]
    first, last = (stage(number, parallelism={"pp": 2})["parameters_gib"] for number in (0, 1))
    table = 50257 * 1600 * 2 / GIB
    assert first + last - whole == pytest.approx(table, rel=0.01)


def test_dualpipe_holds_two_of_everything():
    plain = stage(parallelism={"pp": 4, "schedule": "1f1b"})
    both = stage(parallelism={"pp": 4, "schedule": "dualpipe"})
    ends = stage(3, parallelism={"pp": 4, "schedule": "1f1b"})
    table = -(-50257 // 128) * 128 * 1600 * 2 / GIB  # tied to the head of the other direction, which is on this rank
    two = plain["parameters_gib"] + ends["parameters_gib"] - table
    assert both["parameters_gib"] == pytest.approx(two, rel=1e-3)


# -- what comes and goes -------------------------------------------------------------------------------------------


def test_activations_in_flight_follow_the_schedule():
    held = {
        (schedule, vpp): [
            s["activations_gib"]
            for s in memory(parallelism={"pp": 4, "schedule": schedule, "vpp": vpp}, training={"global_batch": 32})[
                "per_stage"
            ]
        ]
        for schedule, vpp in (("gpipe", 1), ("1f1b", 1), ("interleaved", 2))
    }
    # Stage r of 1F1B holds p − r micro-batches, GPipe all 16 on every stage; the head's logits come on the last.
    one = held["1f1b", 1][2] / 2
    assert held["1f1b", 1][:3] == pytest.approx([4 * one, 3 * one, 2 * one], rel=0.01)
    assert held["gpipe", 1][:3] == pytest.approx([16 * one] * 3, rel=0.01)
    # Korthikanti et al. 2022, section 4.2.3: 1 + (p − 1)/(p·m) times as much with m chunks.
    assert held["interleaved", 2][0] == pytest.approx(4 * one * (1 + 3 / 8), rel=0.02)


def test_recomputing_more_layers_keeps_less():
    modes = ["none", {"mode": "full", "layers": 12}, {"mode": "full", "layers": 24}, "full"]
    kept = [stage(training={"recompute": mode})["activations_gib"] for mode in modes]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] - kept[1] == pytest.approx(kept[1] - kept[2], rel=0.01)
    unfused = [stage(training={"attention": "unfused", "recompute": m})["activations_gib"] for m in modes[:1]]
    assert unfused[0] > 2 * kept[0]


def test_gradients_that_are_not_reduced_at_once_stay_whole():
    """FSDP's no_sync: no communication before the last micro-batch, at the price of unsharded fp32 gradients."""
    at_once, last = (stage(parallelism={"zero": 3}, training={"accumulate_locally": local}) for local in (False, True))
    whole = simulate(scenario()).metrics["parameters"] * 4 / GIB
    assert last["gradients_gib"] - at_once["gradients_gib"] == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("fused, bytes_each", [(True, 2), ([], 12)])
def test_a_chunked_loss_holds_one_chunk_of_logits(fused, bytes_each):
    """Fused: the gradient in place of 16-bit logits. Unfused: three fp32 copies."""
    wide = {"layers": 2, "hidden": 512, "heads": 8, "vocab": 131072, "position": "rope"}
    training = {"micro_batch": 4, "recompute": "full", "fused": fused}
    runs = [simulate(scenario(training=training | {"loss_chunks": chunks}, model=wide)).metrics for chunks in (1, 2, 4)]
    peaks = [run["memory"]["per_stage"][0] for run in runs]
    held = [stage["activations_gib"] + stage["temporary_gib"] for stage in peaks]
    logits = 4096 * 131072 * bytes_each / GIB
    assert held[0] - held[1] == pytest.approx(logits / 2)
    assert held[1] - held[2] == pytest.approx(logits / 4)
    flops = [run["hardware_tflops_per_gpu"] * run["iteration_time_s"] for run in runs]
    assert flops == pytest.approx([flops[0]] * 3)


def test_fsdp_holds_few_gathered_layers():
    flat = stage(parallelism={"zero": 3}, training={"recompute": "full"})
    layer = 12 * 1600**2 * 2 / GIB
    assert flat["temporary_gib"] > 2 * layer  # the layer that computes and the next one, in 16 bits
    assert flat["parameters_gib"] < 0.3 * stage()["parameters_gib"] * 2


def test_memory_says_what_libraries_take():
    document = memory()
    assert document["peak_allocated_gib"] < document["peak_reserved_gib"] <= document["peak_device_gib"]
    assert document["capacity_gib"] < 80
    assert stage(nodes=2)["reserved_gib"] >= stage()["reserved_gib"]


@pytest.mark.parametrize(
    "name, tflops",
    [
        ("mixtral-8x7b-h100-64", 468),
        ("llama3-8b-fsdp-h100-8", None),
        ("llama3-70b-fsdp-tp-h100-256", None),
        ("llama3-8b-128k-cp-h100-8", None),
    ],
)
def test_scenarios_that_ran_fit(name, tflops):
    metrics = simulate(load_scenario(SCENARIOS / f"{name}.yaml", {"simulation.detail": "block"})).metrics
    assert metrics["memory"]["fits"]
    if tflops:
        assert metrics["model_tflops_per_gpu"] == pytest.approx(tflops, rel=0.1)


# -- invariants ----------------------------------------------------------------------------------------------------

LAYOUTS = st.fixed_dictionaries(
    {
        "tp": st.sampled_from([1, 2, 4]),
        "pp": st.sampled_from([1, 2, 4]),
        "schedule": st.sampled_from(["gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe"]),
        "zero": st.sampled_from([0, 1, 2, 3]),
        "vpp": st.sampled_from([1, 2]),
    }
)
TRAININGS = st.fixed_dictionaries(
    {
        "recompute": st.sampled_from(["none", "selective", "full", {"mode": "full", "layers": 2}]),
        "attention": st.sampled_from(["flash", "unfused"]),
        "precision": st.sampled_from(["fp32", "bf16"]),
        "grad_dtype": st.sampled_from(["fp32", "bf16"]),
        "fused": st.booleans(),
        "accumulate_locally": st.booleans(),
        "micro_batch": st.sampled_from([1, 2]),
    }
)
MODEL = {"layers": 16, "hidden": 512, "heads": 8, "vocab": 4096, "position": "rope"}


def replayed_peak(frame):
    """Per rank: the maximum over time of the sum over categories, from the table alone."""
    peaks = []
    for _, rows in frame.groupby("rank", sort=False):
        times = np.unique(rows["time_s"])
        total = np.zeros(len(times))
        for _, own in rows.groupby("category", observed=True):
            last = own.groupby("time_s")["allocated_bytes"].last()
            total += last.to_numpy()[np.searchsorted(last.index, times, side="right") - 1]
        peaks.append(total.max())
    return max(peaks)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(layout=LAYOUTS, training=TRAININGS)
@example(  # between its weight gradients a half scatters those that it has
    layout={"tp": 1, "pp": 2, "schedule": "zb-v", "zero": 3, "vpp": 2},
    training={"accumulate_locally": False, "fused": False, "precision": "fp32", "recompute": "full"},
)
def test_peak_is_the_maximum_of_the_replayed_curve(layout, training):
    try:
        made = scenario(layout, training | {"global_batch": 32}, model=MODEL)
    except UserError:
        return
    result = simulate(made)
    document = result.metrics["memory"]
    worst = max(document["per_stage"], key=lambda entry: entry["peak_gib"])
    assert worst["peak_gib"] == document["peak_gib"]
    parts = [value for key, value in worst.items() if key not in ("stage", "peak_gib")]
    assert sum(parts) == pytest.approx(document["peak_gib"], rel=1e-12) and min(parts) >= -1e-9
    assert replayed_peak(result.memory) == pytest.approx(document["peak_gib"] * GIB, rel=1e-9)
    kernel = simulate(made.with_values({"simulation.detail": "kernel"})).metrics["memory"]
    assert kernel["peak_gib"] == pytest.approx(document["peak_gib"], rel=1e-12)


def test_everything_is_freed_when_the_iteration_ends():
    frame = simulate(scenario({"pp": 2, "zero": 1})).memory
    for _, rows in frame[frame["category"] == "activations"].groupby("rank"):
        assert rows["allocated_bytes"].iloc[-1] == pytest.approx(0, abs=1.0)


def test_kept_parameters_cost_memory_and_save_gathers():
    detail = {"parallelism": {"zero": 3}, "training": {"global_batch": 32}, "detail": "kernel"}
    dropped, kept = (
        simulate(scenario(**detail | {"parallelism": {"zero": 3, "reshard": value}})) for value in (True, False)
    )
    first = [result.metrics["memory"]["per_stage"][0]["parameters_gib"] for result in (dropped, kept)]
    assert first[1] > 2 * first[0]

    def gathers(result):
        return int((result.trace["name"] == "parameter all-gather").sum())

    # 48 layers, embedding and head: once an iteration, or in each of 2 passes of 4 micro-batches.
    assert (gathers(kept), gathers(dropped)) == (50, 400)
    assert kept.metrics["iteration_time_s"] <= dropped.metrics["iteration_time_s"]


def test_kept_inputs_cost_memory_and_save_gathers():
    again, kept = (simulate(scenario(parallelism={"tp": 8, "regather": v}, model="llama2-7b")) for v in (True, False))
    activations = [result.metrics["memory"]["per_stage"][0]["activations_gib"] for result in (again, kept)]
    assert activations[1] > activations[0]
    assert kept.metrics["iteration_time_s"] < again.metrics["iteration_time_s"]


def test_deepseek_v3_fits_as_it_did():
    """By what its report names (arXiv 2412.19437, sections 3.2.3 and 3.3.3), and not without."""
    run = load_scenario("scenarios/deepseek-v3-h800-2048.yaml")
    assert simulate(run).metrics["memory"]["fits"]
    for key in ("recompute", "activation_input", "attention_output"):
        without = run.with_values({f"training.{key}": "none" if key == "recompute" else None})
        assert not simulate(without).metrics["memory"]["fits"], key


@pytest.mark.parametrize("schedule", ["zb-v", "zb-h1", "interleaved", "dualpipe-v"])
@pytest.mark.parametrize("detail", ["block", "kernel"])
def test_a_stage_of_an_embedding_alone_frees_what_it_held(schedule, detail):
    """Its backward pass has no kernels for its input; what waits for the weight gradients is held all the same."""
    drawn = {
        "name": "few layers",
        "model": {"layers": 4, "hidden": 512, "heads": 4, "vocab": 50257},
        "cluster": {"topology": "dgx-a100", "nodes": 1, "gpus_per_node": 4},
        "parallelism": {"pp": 4, "schedule": schedule, "stage_layers": "balanced"},
        "training": {"seq_len": 256, "global_batch": 8},
        "simulation": {"detail": detail},
    }
    if schedule != "zb-h1":
        drawn["parallelism"]["vpp"] = 2
    memory = simulate(drawn).memory
    assert memory.allocated_bytes.min() >= 0
    moving = memory[memory.category.isin(["activations", "temporary"])]
    ends = moving.groupby(["rank", "category"], observed=True).allocated_bytes.last()
    assert (ends == moving.groupby(["rank", "category"], observed=True).allocated_bytes.first()).all()
