"""Random scenarios over all options, small enough that one is simulated in a fraction of a second; most are valid."""

from hypothesis import strategies as st

import llmsim
from llmsim.errors import UserError

GPUS = {"dgx-h100": 8, "dgx-a100": 8, "dgx-v100": 8, "gb200-nvl72": 8, "dgx-b200": 8, "aws-p4d": 8, "hgx-mi300x": 8,
        "pcie-a100-box": 4, "h100-pcie-pairs": 4, "abci-v100": 4, "example-dragonfly": 4, "example-rail-only": 8,
        "example-leaf-spine": 8}  # fmt: skip
SCHEDULES = ("1f1b", "gpipe", "gpipe-lifo", "interleaved", "looped-bfs", "looped-bfs-fifo", "zb-h1", "zb-h2", "zb-v",
             "zb-v-torch", "zb-auto", "dualpipe", "dualpipe-v")  # fmt: skip


def divisors(number: int, most: int = 64) -> list[int]:
    return [d for d in range(1, min(number, most) + 1) if number % d == 0]


@st.composite
def scenarios(draw) -> dict:
    """A mapping for `llmsim.Scenario`; earlier choices are the simpler ones, to which hypothesis shrinks."""

    def pick(*options):
        return draw(st.sampled_from(options))

    def rarely(section: dict, key: str, *options, one_in: int = 5) -> None:
        if draw(st.integers(0, one_in - 1)) == one_in - 1:
            section[key] = pick(*options)

    topology = pick(*GPUS)
    nodes, per_node = pick(1, 2, 4), pick(*divisors(GPUS[topology], 8))
    gpus = nodes * per_node
    heads = pick(4, 8, 16)
    model = {
        "layers": pick(2, 1, 4, 8, 12), "hidden": heads * pick(64, 128), "heads": heads,
        "kv_heads": pick(heads, heads // 2, heads // 4), "vocab": pick(32000, 50257),
        "position": pick("rope", "learned", "alibi", "none"), "norm": pick("rmsnorm", "layernorm"),
        "bias": pick(False, True), "gated_mlp": pick(False, True), "tied_embeddings": pick(False, True),
    }  # fmt: skip
    experts = pick(0, 0, 4, 8)
    if experts:
        moe = {"experts": experts, "top_k": pick(1, 2), "expert_ffn_hidden": 512, "shared_experts": pick(0, 1)}
        rarely(moe, "capacity_factor", 1.0, 1.25)
        model["moe"] = moe
    rarely(model, "sliding_window", 64, one_in=8)
    rarely(model, "mtp_layers", 1, one_in=8)
    tp = pick(*divisors(gpus, 8))
    pp = pick(*divisors(gpus // tp, 8))
    cp = pick(1, 1, *divisors(gpus // tp // pp, 4))
    dp = gpus // tp // pp // cp
    split = {"tp": tp, "pp": pp, "cp": cp, "zero": pick(0, 1, 2, 3)}
    split |= {key: pick(True, False) for key in ("sequence_parallel", "regather", "scatter_gather", "reshard")}
    if cp > 1:
        split["cp_kind"] = pick("ring", "all_gather", "ulysses")
    if experts:
        split |= {"ep": pick(*divisors(tp * cp * dp)), "dispatch": pick("all_to_all", "deduplicated")}
        split["expert_imbalance"] = pick(1.0, 1.3)
        rarely(split, "etp", 1, tp)
    if pp > 1:
        schedule = split["schedule"] = pick(*SCHEDULES)
        if schedule in ("interleaved", "looped-bfs", "looped-bfs-fifo"):
            split["vpp"] = pick(2, 3)
        elif schedule in ("zb-v", "zb-v-torch", "dualpipe-v"):
            split["vpp"] = 2
    rarely(split, "order", ["tp", "cp", "dp", "pp", "ep"], ["pp", "dp", "tp", "cp", "ep"])
    rarely(split, "hsdp", *divisors(dp))
    rarely(split, "stage_layers", "balanced")
    micro = pick(1, 2)
    training = {
        "seq_len": pick(128, 512), "micro_batch": micro, "global_batch": micro * dp * pick(1, 2, 4) * pick(1, pp),
        "precision": pick("bf16", "fp16", "fp32", "fp8"), "grad_dtype": pick("fp32", "bf16"),
        "recompute": pick("none", "selective", "full", {"mode": "full", "layers": 1}, {"modules": ["norms"]}),
        "attention": pick("flash", "unfused"), "fused": pick(True, False), "loss_chunks": pick(1, 4),
        "optimizer": pick("adam", "sgd", "adafactor", "muon", "adam8bit"),
        "accumulate_locally": pick(True, True, False),
        "overlap": {
            key: pick(False, True) for key in ("grad_reduce", "param_gather", "pipeline", "tp_grad", "tp", "ep")
        },
    }  # fmt: skip
    rarely(training, "bucket", 1e6, 4e7)
    rarely(training, "host", "eager", "compiled", "graphs", "megatron", {"kernel": "5 us"}, one_in=3)
    if draw(st.integers(0, 3)) == 3:
        outside = {"optimizer": pick("cpu", "none", "nvme"), "activations": pick("none", "cpu", "nvme")}
        training["offload"] = outside | {"parameters": pick("none", "cpu") if split["zero"] == 3 else "none"}
    scenario = {
        "name": "drawn", "model": model, "parallelism": split, "training": training,
        "cluster": {"topology": topology, "nodes": nodes, "gpus_per_node": per_node},
    }  # fmt: skip
    if nodes > 1:
        rarely(scenario["cluster"], "routing", "ecmp-hash", one_in=4)
        rarely(scenario, "background", [{"from": "node0", "to": "node1", "rate": pick("1 GB/s", "20 GB/s")}], one_in=10)
    rarely(scenario["cluster"], "rank_map", "round-robin", one_in=8)
    if draw(st.integers(0, 2)) == 2:
        scenario["faults"] = [_fault(pick, nodes, per_node) for _ in range(pick(1, 2))]
    simulation = {}
    rarely(simulation, "iterations", 2, one_in=8)
    if draw(st.integers(0, 9)) == 9:
        simulation |= {"jitter": 0.05, "seed": 1}
    scenario["simulation"] = simulation
    rarely(scenario, "data", {"storage": pick("shared", "nvme", "1 GB/s"), "workers": 2, "worker_rate": 1e6}, one_in=8)
    return scenario


def _fault(pick, nodes: int, per_node: int) -> dict:
    node, gpu = pick(*range(nodes)), pick(*range(per_node))
    fault = pick(
        {"kind": "slow_gpu", "gpu": f"node{node}.gpu{gpu}", "factor": pick(0.8, 0.3)},
        {"kind": "slow_link", "link": f"node{node}.nic{gpu}", "factor": pick(0.5, 0.1)},
    )
    if pick(False, True):
        begin = pick(0.0, 0.001, 0.01)
        fault = fault | {"from": begin, "until": begin + pick(0.001, 0.1)}
    return fault


def simulated(scenario: dict, **simulation: object) -> "llmsim.Result | None":
    """The result under these options of `simulation`, None for a scenario that does not fit together."""
    try:
        return llmsim.simulate(llmsim.Scenario(**scenario | {"simulation": scenario["simulation"] | simulation}))
    except UserError:
        return None
