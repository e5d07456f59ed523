"""Random scenarios over all options, small enough to be simulated in a fraction of a second.

Each choice goes through one function `choose`, which takes a sequence and returns one of its entries, the plainest
first: `random.Random(seed).choice` gives the scenarios of a seed (`seeded`), hypothesis gives ones that it can shrink
(`scenarios`). Most that are drawn are valid; the others are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

import llmsim
from llmsim.catalogue.frameworks import frameworks
from llmsim.errors import UserError

Choose = Callable[[Sequence[Any]], Any]
Mapping = dict[str, Any]

_AMPERE = ("bf16", "fp16", "tf32", "fp32")
_HOPPER = ("bf16", "fp8", "fp16", "tf32", "fp32")
_BLACKWELL = (*_HOPPER, "nvfp4")
# What the GPUs of each topology compute in.
PRECISIONS = {
    **dict.fromkeys(("dgx-h100", "hgx-mi300x", "hgx-h100-roce", "h100-pcie-pairs"), _HOPPER),
    **dict.fromkeys(("example-leaf-spine", "example-rail-only", "example-dragonfly", "example-fat-tree"), _HOPPER),
    **dict.fromkeys(("dgx-a100", "aws-p4d", "pcie-a100-box", "jean-zay-a100", "example-torus-2d"), _AMPERE),
    **dict.fromkeys(("dgx-b200", "gb200-nvl72"), _BLACKWELL),
    **dict.fromkeys(("dgx-v100", "abci-v100"), ("fp16", "fp32")),
}
SCHEDULES = (
    *("1f1b", "gpipe", "gpipe-lifo", "interleaved", "looped-bfs", "looped-bfs-fifo", "zb-h1", "zb-h2", "zb-auto"),
    *("zb-v", "zb-v-torch", "dualpipe", "dualpipe-v"),
)
_CHUNKS = {"interleaved": (2, 3), "looped-bfs": (2, 1, 3), "looped-bfs-fifo": (2, 3)}
_CHUNKS |= dict.fromkeys(("zb-v", "zb-v-torch", "dualpipe-v"), (2,))
_MODULES = ("core_attn", "layernorm", "mlp", "moe", "moe_act", "mla_up_proj", "shared_experts")
_OVERLAPS = ("grad_reduce", "param_gather", "pipeline", "tp_grad", "tp", "ep")


def mapping(choose: Choose) -> Mapping:
    """A scenario as a file would give it; most are valid."""
    nodes, per_node = choose([(1, 4), (1, 1), (1, 2), (1, 8), (2, 1), (2, 2), (2, 4), (3, 2), (4, 1), (4, 2)])
    gpus = nodes * per_node
    tp = choose(_divisors(gpus))
    pp = choose(_divisors(gpus // tp))
    cp = choose([1, 1, *_divisors(gpus // tp // pp)])
    dp = gpus // tp // pp // cp
    model = _model(choose)
    parallelism = _parallelism(choose, tp, pp, cp, dp, model)
    cluster = _cluster(choose, nodes, per_node)
    drawn = {
        "name": "drawn",
        "model": model,
        "cluster": cluster,
        "parallelism": parallelism,
        "training": _training(choose, parallelism, dp, PRECISIONS[cluster["topology"]]),
    }
    if choose([False, False, False, True]):
        drawn["data"] = {
            "storage": choose(["1 GB/s", "shared", "nvme", {"bandwidth": "100 MB/s", "latency": "1 ms"}]),
            "workers": choose([2, 1]),
            "worker_rate": choose([None, 1e5, 1e7]),
            "prefetch": choose([2, 0]),
        }
    if nodes > 1 and choose([False, False, False, True]):
        drawn["background"] = [{"from": "node0", "to": "node1", "rate": choose(["1 GB/s", "20 GB/s"])}]
    kinds = _FAULTS if "data" in drawn else _FAULTS[:-1]
    drawn["faults"] = [_fault(choose, nodes, per_node, choose(kinds)) for _ in range(choose([0, 0, 1, 2]))]
    drawn["simulation"] = {"iterations": choose([1, 1, 2, 3]), "jitter": choose([0.0, 0.0, 0.0, 0.0, 0.05])}
    return drawn


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _model(choose: Choose) -> Mapping:
    heads = choose([8, 4, 16])
    model: Mapping = {"layers": choose([4, 1, 2, 6, 8]), "hidden": heads * choose([64, 128]), "heads": heads}
    model |= {"vocab": choose([32000, 50257]), "position": choose(["rope", "learned", "alibi", "none"])}
    model |= {"norm": choose(["rmsnorm", "layernorm"]), "kv_heads": choose([heads, heads // 2, 1])}
    model |= {key: choose([False, True]) for key in ("bias", "gated_mlp", "tied_embeddings")}
    if choose([False, False, True]):
        model["moe"] = {
            "experts": choose([8, 4]),
            "top_k": choose([2, 1, 4]),
            "expert_ffn_hidden": choose([512, 1024]),
            "shared_experts": choose([0, 0, 1]),
            "first_dense": choose([0, 0, 1]),
            "capacity_factor": choose([None, None, 1.25]),
        }
    if choose([False, False, False, False, True]):
        ranks = {"q_lora_rank": choose([0, 128]), "kv_lora_rank": 64}
        model["mla"] = ranks | {"qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64}
        del model["kv_heads"]
    model["sliding_window"] = choose([None, None, None, 64])
    model["mtp_layers"] = choose([0, 0, 0, 0, 1])
    if choose([False, False, False, False, False, True]):
        model["encoder"] = {"layers": choose([2, 3]), "hidden": 256, "heads": 8, "patch_inputs": 588}
        model |= {"encoder_tokens": 64, "projector": {"hidden": [512], "merge": 4}}
    return {key: value for key, value in model.items() if value is not None}


def _cluster(choose: Choose, nodes: int, per_node: int) -> Mapping:
    cluster: Mapping = {"topology": choose(list(PRECISIONS)), "nodes": nodes, "gpus_per_node": per_node}
    cluster["routing"] = choose(["ideal", "ideal", "ecmp-hash"])
    order = list(range(nodes * per_node))
    cluster["rank_map"] = choose([None, None, None, "round-robin", order[::-1], order[1:] + order[:1]])
    return cluster


def _parallelism(choose: Choose, tp: int, pp: int, cp: int, dp: int, model: Mapping) -> Mapping:
    layers = model["layers"]
    split: Mapping = {"tp": tp, "pp": pp, "cp": cp, "zero": choose([0, 0, 1, 2, 3])}
    split |= {key: choose([True, False]) for key in ("sequence_parallel", "regather", "scatter_gather", "reshard")}
    if cp > 1:
        split["cp_kind"] = choose(["ring", "all_gather", "ulysses"])
    if "moe" in model:
        split["ep"] = choose(_divisors(tp * cp * dp))
        split["dispatch"] = choose(["all_to_all", "deduplicated"])
        split["dispatch_dtype"] = choose([None, "fp8"]) if split["dispatch"] == "deduplicated" else None
        split |= {"expert_imbalance": choose([1.0, 1.3]), "etp": choose([None, None, 1, tp])}
    split["schedule"] = choose(SCHEDULES) if pp > 1 else "1f1b"
    split["vpp"] = choose(_CHUNKS.get(split["schedule"], (1,)))
    if split["zero"] and dp > 1:
        split["hsdp"] = choose([None, None, *_divisors(dp)])
    split["order"] = choose(["tp-cp-ep-dp-pp", "tp-cp-ep-dp-pp", "pp-dp-ep-cp-tp", "dp-tp-pp-cp-ep", "tp-pp-cp-ep-dp"])
    even = layers % (pp * split["vpp"]) == 0
    split["stage_layers"] = choose([None, "balanced"] if even else ["balanced"])
    return split


def _training(choose: Choose, split: Mapping, dp: int, precisions: Sequence[str]) -> Mapping:
    micro, count = choose([1, 2]), choose([1, 2, 3, 4]) * choose([1, split["pp"]])
    training: Mapping = {
        "seq_len": choose([256, 128, 512]),
        "micro_batch": micro,
        "global_batch": micro * dp * count,
        "precision": choose(precisions),
        "grad_dtype": choose(["fp32", "bf16"]),
        "recompute": choose(["none", "selective", "full", {"mode": "full", "layers": 1}, "modules"]),
        "attention": choose(["flash", "unfused", "flash2"]),
        "optimizer": choose(["adam", "sgd", "adafactor", "muon", "adam8bit", "adam16bit"]),
        "fused": choose([True, True, False, ["norm", "swiglu", "optimizer"]]),
        "loss_chunks": choose([1, 1, 4]),
        "accumulate_locally": choose([True, True, False]),
        "bucket": choose([None, None, 1e6, 4e7]),
        "host": choose([None, None, "eager", "compiled", "graphs", "megatron", {"kernel": "5 us"}]),
        "framework": choose([None, None, None, *frameworks()]),
        "grad_reduction": choose(["auto", "auto", "all_reduce" if split["zero"] < 2 else "reduce_scatter"]),
    }
    if training["recompute"] == "modules":
        chosen = [module for module in _MODULES if choose([False, True])]
        training["recompute"] = {"mode": "selective", "modules": chosen or ["layernorm"]}
    training["overlap"] = {key: choose([True, False]) for key in _OVERLAPS[:4]}
    paired = split["vpp"] > 1 or split["pp"] == 1
    training["overlap"] |= {"tp": choose([False, True]), "ep": paired and choose([False, True])}
    if choose([False, False, True]):
        updated = choose(["cpu", "nvme", "none"])
        places = {"optimizer": updated, "activations": choose(["none", "cpu", "nvme"])}
        if split["zero"] == 3 and updated != "none":
            places["parameters"] = choose(["none", "cpu", "nvme"])
        training["offload"] = places
    if training["framework"]:
        for key in ("fused", "overlap", "host", "bucket"):  # for the framework to say
            del training[key]
    return {key: value for key, value in training.items() if value is not None}


_FAULTS = ("slow_gpu", "slow_link", "link_down", "loader_stall")


def _fault(choose: Choose, nodes: int, per_node: int, kind: str) -> Mapping:
    """One that lasts throughout or for a while; a loader that stalls goes on again."""
    node, gpu = f"node{choose(range(nodes))}", choose(range(per_node))
    start = choose([0.0, 0.001, 0.01])
    fault: Mapping = {"kind": kind, "from": start, "until": choose([None, start + 0.001, start + 0.05])}
    if kind == "slow_gpu":
        return fault | {"gpu": f"{node}.gpu{gpu}", "factor": choose([0.8, 0.3])}
    if kind == "loader_stall":
        stalled = {"until": start + 0.01} if choose([False, True]) else {"factor": 0.3}
        return fault | {"node": choose([None, node])} | stalled
    link = f"{node}.{choose(['nic', 'gpu'])}{gpu}"
    return fault | {"link": link} | ({"factor": choose([0.5, 0.1])} if kind == "slow_link" else {})


def valid(drawn: Mapping, **simulation: Any) -> llmsim.Scenario | None:
    """The scenario with these settings of its simulation, None where it is refused."""
    try:
        return llmsim.Scenario(**{**drawn, "simulation": {**drawn["simulation"], **simulation}})
    except UserError:
        return None


def simulated(drawn: Mapping, **simulation: Any) -> llmsim.Result | None:
    """Its result; None where it is refused, before or in the run (a link is down and there is no way around)."""
    scenario = valid(drawn, **simulation)
    try:
        return llmsim.simulate(scenario) if scenario else None
    except UserError:
        return None


def seeded(seed: int, count: int) -> Iterator[Mapping]:
    """`count` valid scenarios, the same ones for a seed."""
    random = Random(seed)
    while count > 0:
        drawn = mapping(random.choice)
        if valid(drawn):
            count -= 1
            yield drawn


@st.composite
def scenarios(draw: Callable[[Any], Any]) -> Mapping:
    """The same for hypothesis: mappings for `valid` and `simulated`."""
    drawn = mapping(lambda options: draw(st.sampled_from(list(options))))
    assume(valid(drawn))
    return drawn
