"""Stacks beside the decoder's: a vision encoder in front of it, modules of multi-token prediction behind it."""

import pytest

import llmsim
from llmsim.errors import UserError
from llmsim.model.flops import flop_ledger, hardware_flops_per_token
from llmsim.model.parameters import parameter_ledger
from llmsim.model.published import model

GIB = 2.0**30
TEXT = {"layers": 4, "hidden": 1024, "heads": 16, "vocab": 32000, "position": "rope", "tied_embeddings": False}
VISION = {"layers": 3, "hidden": 512, "heads": 8, "patch_inputs": 588, "max_positions": 257, "class_token": True}
SEEING = {**TEXT, "encoder": VISION, "encoder_tokens": 256, "projector": {"hidden": [2048], "merge": 4}}


def run(shape, parallelism=None, training=None, detail="kernel", nodes=1):
    scenario = llmsim.Scenario(
        name="t",
        model=dict(shape),
        cluster={"topology": "dgx-a100", "nodes": nodes},
        parallelism=parallelism or {},
        training={"seq_len": 512, "global_batch": 32, "micro_batch": 1, "recompute": "none", **(training or {})},
        simulation={"detail": detail},
    )
    return llmsim.simulate(scenario)


def test_published_parameters_are_exact():
    """Counts of the published weights: Llama 4 Scout with its vision encoder, LLaVA-1.5 7B."""
    assert parameter_ledger(model("llama4-scout-vision").architecture).total == 108641793536
    ledger = parameter_ledger(model("llava-1.5-7b").architecture)
    assert ledger.total == 7063427072
    assert {row.name: row.count for row in ledger.rows}["encoder"] == 303507456  # CLIP ViT-L/14 at 336 pixels


@pytest.mark.parametrize(
    "parallelism", [{}, {"tp": 2}, {"pp": 2}, {"pp": 2, "tp": 2, "vpp": 2, "schedule": "interleaved"}]
)
@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("shape", [{**TEXT, "mtp_layers": 1}, SEEING], ids=["prediction", "vision"])
def test_executed_flops_equal_the_ledger(shape, parallelism, recompute):
    """Unfused attention computes all pairs. A vocabulary of 250 × 128 rows needs no padding."""
    result = run(shape, parallelism, {"recompute": recompute, "attention": "unfused"})
    arch = llmsim.Scenario(name="t", model=dict(shape), cluster={"topology": "dgx-a100"},
                           training={"global_batch": 8}).resolve().architecture  # fmt: skip
    expected = hardware_flops_per_token(arch, 512, recompute, causal=False)
    executed = result.metrics["hardware_tflops_per_gpu"] * 1e12 * 8 / result.metrics["tokens_per_s"]
    # Tensor ranks share the 257 positions of an image unevenly. The ledger's recomputation takes in the projector, the
    # patches and the projection of a prediction module, which are no layers.
    tolerance = 0.02 if recompute == "full" else 1e-4 if "encoder" in shape and "tp" in parallelism else 1e-9
    assert executed == pytest.approx(expected, rel=tolerance)


def test_images_multiply_the_encoder_only():
    one, two = (run(SEEING, training={"images": n, "seq_len": 1024}).trace for n in (1, 2))
    flops = [trace.flops.where(trace.name.str.startswith("encoder"), 0.0).sum() for trace in (one, two)]
    rest = [trace.flops.sum() - seen for trace, seen in zip((one, two), flops)]
    assert flops[1] == pytest.approx(2 * flops[0]) and rest[1] == pytest.approx(rest[0])


def test_where_the_stacks_are():
    trace = run(SEEING, {"pp": 2}).trace
    assert set(trace.stage[trace.name.str.startswith("encoder")]) == {0}
    assert sorted(set(trace.layer)) == [-1, *range(7)]  # three of the encoder, then four of the decoder
    trace = run({**TEXT, "mtp_layers": 2}, {"pp": 2}).trace
    assert set(trace.stage[trace.name.str.startswith("mtp")]) == {1}
    assert sorted(set(trace.layer)) == [-1, *range(6)]


def test_each_context_rank_encodes_all_images():
    whole, split = (run(SEEING, {"cp": cp}).trace for cp in (1, 2))
    flops = [trace.flops.where(trace.name.str.startswith("encoder"), 0.0).sum() for trace in (whole, split)]
    assert flops[1] == pytest.approx(2 * flops[0])  # of a rank: twice the micro-batches, each encoded whole


def test_prediction_shares_embedding_and_head():
    shape, table = {**TEXT, "mtp_layers": 2}, 32000 * 1024 * 2 / GIB
    plain, whole = run(TEXT).metrics, run(shape).metrics
    more = (whole["parameters"] - plain["parameters"]) * 2 / GIB
    held = [metrics["memory"]["per_stage"][0]["parameters_gib"] for metrics in (plain, whole)]
    assert held[1] - held[0] == pytest.approx(more)
    # Over two stages the last one has an embedding of its own, whose gradient is added to the first one's.
    split = run(shape, {"pp": 2})
    both = sum(stage["parameters_gib"] for stage in split.metrics["memory"]["per_stage"])
    assert both - held[1] == pytest.approx(table)
    assert "embedding gradient" in set(split.trace.name)
    assert "embedding gradient" not in set(run(shape).trace.name) | set(run(TEXT, {"pp": 2}).trace.name)


@pytest.mark.parametrize("shape", [{**TEXT, "mtp_layers": 1}, SEEING], ids=["prediction", "vision"])
def test_blocks_take_as_long_as_their_kernels(shape):
    for parallelism in ({"tp": 2, "pp": 2}, {"zero": 3}, {"pp": 2, "schedule": "zb-h1"}):
        times = [run(shape, parallelism, detail=detail).metrics["iteration_time_s"] for detail in ("kernel", "block")]
        assert times[1] == pytest.approx(times[0], rel=2e-3), parallelism


def test_balanced_stages_give_the_encoder_and_the_prediction_room():
    def layers(shape, stage):
        trace = run({**shape, "layers": 12}, {"pp": 2, "stage_layers": "balanced"}).trace
        ahead = shape.get("encoder", {}).get("layers", 0)
        return len({layer for layer in trace.layer[trace.stage == stage] if ahead <= layer < ahead + 12})

    large = {**SEEING, "encoder": {**VISION, "layers": 16, "hidden": 1024}}
    assert layers(large, 0) < layers(TEXT, 0)
    assert layers({**TEXT, "mtp_layers": 2}, 1) < layers(TEXT, 1)


def test_the_encoder_keeps_activations_and_states():
    plain, seeing = (run(shape).metrics["memory"]["per_stage"][0] for shape in (TEXT, SEEING))
    arch = model("llava-1.5-7b").architecture
    assert flop_ledger(arch, 2048).encoder > 0
    for kind in ("parameters_gib", "gradients_gib", "optimizer_gib", "activations_gib"):
        assert seeing[kind] > plain[kind]
    full = run(SEEING, training={"recompute": "full"}).metrics["memory"]["per_stage"][0]
    assert full["activations_gib"] < seeing["activations_gib"] / 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"training": {"images": 9}}, "9 of 64 tokens are more than the 512 of a sequence; expected at most 8"),
        ({"shape": TEXT, "training": {"images": 2}}, "images: 2 needs a vision encoder; t has none; expected null"),
        ({"parallelism": {"tp": 16}, "nodes": 2}, "16 does not divide the attention heads 8 of the vision encoder"),
        ({"shape": {**SEEING, "encoder_tokens": 0}}, "encoder_tokens: the encoder needs the patches of one image"),
        ({"shape": {**SEEING, "encoder_tokens": 255}}, "projector.merge: 4 does not divide the 255 encoder_tokens"),
        ({"shape": {**TEXT, "encoder_tokens": 9}}, "encoder_tokens: 9 patches have no encoder"),
        ({"shape": {**SEEING, "projector": {"hidden": 7}}}, "projector.hidden: 7 is not a list"),
    ],
)  # fmt: skip
def test_errors(change, message):
    with pytest.raises(UserError) as error:
        run(**{"shape": SEEING, **change})
    assert message in str(error.value)
