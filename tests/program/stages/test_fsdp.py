"""Fully sharded parameters: what each micro-batch gathers, copies and scatters."""

import pytest

import llmsim
from llmsim.model.shard import ALL_FUSIONS

RUN = {
    "name": "sharded",
    "model": {"layers": 4, "hidden": 2048, "heads": 16, "vocab": 32000, "tied_embeddings": False},
    "cluster": {"topology": "dgx-h100", "nodes": 1},
    "parallelism": {"zero": 3},
    "training": {"seq_len": 2048, "global_batch": 16, "micro_batch": 1, "recompute": "none"},
}


def trace(**training):
    return llmsim.simulate(RUN | {"training": RUN["training"] | training}).trace


def test_every_micro_batch_gathers_twice_and_scatters_unless_it_accumulates():
    parts = 6  # embedding, four layers, head
    for accumulates, scatters in ((True, parts), (False, 2 * parts)):
        names = trace(accumulate_locally=accumulates)["name"].value_counts()
        assert names["parameter all-gather"] == 2 * 2 * parts
        assert names["gradient reduce-scatter"] == scatters


def test_flattened_gradients_move_eighteen_bytes_a_parameter():
    """Joined (2 + 2), cast to fp32 (2 + 4) and divided (4 + 4) before they are scattered; bf16 needs no cast."""
    without = sorted(ALL_FUSIONS - {"flat_gradients"})
    result = llmsim.simulate(RUN | {"training": RUN["training"] | {"fused": without, "accumulate_locally": False}})
    copies = result.trace[result.trace["name"] == "flatten gradients"]
    assert copies["bytes"].sum() == pytest.approx(2 * 18 * result.metrics["parameters"], rel=1e-3)
    half = trace(fused=without, accumulate_locally=False, grad_dtype="bf16")
    assert half.loc[half["name"] == "flatten gradients", "bytes"].sum() == pytest.approx(
        2 * 8 * result.metrics["parameters"], rel=1e-3
    )
    assert "flatten gradients" not in set(trace(accumulate_locally=False)["name"])


def test_buckets_cut_reductions_into_equal_messages():
    changed = {"parallelism": {"zero": 0}, "training": RUN["training"] | {"overlap": {"grad_reduce": False}}}
    whole = llmsim.simulate(RUN | changed)
    changed["training"] |= {"bucket": 20e6}
    cut = llmsim.simulate(RUN | changed)
    sizes = {}
    for name, result in (("whole", whole), ("cut", cut)):
        rows = result.trace[result.trace["name"] == "gradient all-reduce"]
        sizes[name] = rows["bytes"].sort_values().to_numpy()
    assert sizes["cut"].sum() == pytest.approx(sizes["whole"].sum())
    assert sizes["cut"].max() <= 4 * 20e6 and len(sizes["cut"]) == -(-whole.metrics["parameters"] // 20_000_000)
    changed["training"] |= {"bucket": 1e6}  # a matrix is never cut: four messages for each of six parts
    rows = llmsim.simulate(RUN | changed).trace
    assert (rows["name"] == "gradient all-reduce").sum() == 4 * 6
    assert cut.metrics["iteration_time_s"] > whole.metrics["iteration_time_s"]


def test_without_prefetch_gathers_are_exposed():
    """overlap.param_gather: false gathers each part when the one before it is done."""

    def run(ahead):
        return llmsim.simulate(
            {
                "name": "t",
                "model": "gpt3-1.3b",
                "cluster": {"topology": "dgx-a100", "nodes": 2},
                "parallelism": {"zero": 3},
                "training": {"seq_len": 2048, "global_batch": 16, "overlap": {"param_gather": ahead}},
            }
        ).metrics

    hidden, shown = run(True), run(False)
    assert shown["iteration_time_s"] > hidden["iteration_time_s"]
    assert shown["time_breakdown"]["exposed_dp"] > 2 * hidden["time_breakdown"]["exposed_dp"]
    assert shown["memory"]["peak_gib"] < hidden["memory"]["peak_gib"]


EXPERTS = {"layers": 4, "hidden": 1024, "heads": 16, "vocab": 32000, "bias": False,
           "moe": {"experts": 8, "top_k": 2, "expert_ffn_hidden": 1024}}  # fmt: skip


def hybrid(zero, hsdp):
    return llmsim.simulate(
        {
            "name": "t",
            "model": EXPERTS,
            "cluster": {"topology": "dgx-a100", "nodes": 4, "gpus_per_node": 4},
            "parallelism": {"zero": zero, "ep": 2, "hsdp": hsdp},
            "training": {"seq_len": 1024, "global_batch": 16, "grad_dtype": "bf16"},
        }
    ).metrics


@pytest.mark.parametrize("zero", [1, 3])
def test_hybrid_sharding_keeps_experts_inside_a_replica(zero):
    """With a replica a node, only the gradients' shards cross NICs, experts' too, and states are held once a node."""
    whole, inside = hybrid(zero, None), hybrid(zero, 4)
    crossing = inside["network"]["bytes"]["nic"]
    assert set(crossing) - {"norm"} == {"replica", "ereplica"}
    expert = 4 * 8 * 2 * 1024 * 1024  # parameters
    dense = inside["parameters"] - expert
    # Each of 4 nodes sends 2 · 3/4 of its copy, 2 bytes each, in a ring; NICs of both ends count them.
    assert crossing["ereplica"] == pytest.approx(2 * 4 * 2 * 3 / 4 * 2 * expert, rel=1e-6)
    assert crossing["replica"] == pytest.approx(2 * 4 * 2 * 3 / 4 * 2 * dense, rel=1e-6)
    state = (inside["memory"]["per_stage"][0]["optimizer_gib"], whole["memory"]["per_stage"][0]["optimizer_gib"])
    assert state[0] == pytest.approx(4 * state[1], rel=1e-6)


def muon(**changes):
    shape = {"layers": 4, "hidden": 1024, "heads": 16, "ffn_hidden": 4096, "vocab": 32000, "bias": False}
    parts = {"nodes": 1, "gpus_per_node": 4, "zero": 0, "tp": 1, "model": shape} | changes
    scenario = llmsim.Scenario(
        name="muon",
        model=parts["model"],
        cluster={"topology": "dgx-a100", "nodes": parts["nodes"], "gpus_per_node": parts["gpus_per_node"]},
        parallelism={"zero": parts["zero"], "tp": parts["tp"]},
        training={"seq_len": 512, "global_batch": 8, "optimizer": "muon"},
    )
    trace = llmsim.simulate(scenario).trace
    rows = trace[(trace["name"] == "Newton-Schulz") & (trace["rank"] == trace["rank"].min())]
    assert set(rows["phase"]) == {"update"}
    return rows["flops"].sum()


def newton_schulz_flops(*matrices):
    """Five iterations of X·Xᵀ, its square, and their product with X, for (smaller side, larger side)."""
    return sum(5 * (4 * small**2 * large + 2 * small**3) for small, large in matrices)


def test_muon_orthogonalises_each_hidden_matrix():
    layer = [(1024, 3072), (1024, 1024), (1024, 4096), (1024, 4096)]
    assert muon() == pytest.approx(4 * newton_schulz_flops(*layer))
    assert muon(zero=1) == pytest.approx(newton_schulz_flops(*layer))  # a quarter of the matrices each
    split = [(768, 1024), (256, 1024), (1024, 1024), (1024, 1024)]
    assert muon(tp=4) == pytest.approx(4 * newton_schulz_flops(*split))
