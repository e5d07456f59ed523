"""The result of a run as plain numbers: times, rates, where the time goes, the bottleneck."""

from collections.abc import Mapping

import numpy as np

from llmsim.memory.shortfall import shortfalls
from llmsim.model.architecture import Architecture
from llmsim.model.flops import model_flops_per_token
from llmsim.model.parameters import parameter_ledger

# Model FLOPs count attention over all pairs of positions, as Megatron-LM and PaLM do; flash attention executes half.
CAUSAL = False


def rates(
    architecture: Architecture,
    seq_len: int,
    tokens: float,
    gpus: int,
    peak: float,
    iteration_s: float,
    executed_flops: float,
    peak_seconds: float,
) -> dict[str, float]:
    """Throughput and utilisation. tokens: of one iteration; executed_flops: of all GPUs in one iteration.

    peak_seconds: GPU seconds that those FLOPs take at the dense peak of the training's precision, or of the one that
    a product runs in where that is higher (Muon's bf16 products when training in fp32).
    """
    model = model_flops_per_token(architecture, seq_len, causal=CAUSAL) * tokens / gpus / iteration_s
    hardware = executed_flops / gpus / iteration_s
    return {
        "iteration_time_s": iteration_s,
        "tokens_per_s": tokens / iteration_s,
        "tokens_per_s_per_gpu": tokens / iteration_s / gpus,
        "model_tflops_per_gpu": model / 1e12,
        "hardware_tflops_per_gpu": hardware / 1e12,
        "mfu": model / peak,
        "hfu": peak_seconds / gpus / iteration_s,
    }


def counts(architecture: Architecture, seq_len: int) -> dict[str, int]:
    """Parameters of the model, and those that one token passes through."""
    ledger = parameter_ledger(architecture, seq_len)
    return {"parameters": ledger.total, "active_parameters": ledger.active}


def bubbles(
    waiting: np.ndarray, busy: np.ndarray, window: float, stage: np.ndarray, count: np.ndarray
) -> dict[str, float]:
    """Pipeline waiting, mean over stages: over the window, and over the ideal (busy) time."""
    stages = np.unique(stage)
    waits, works = (
        np.array([np.average(values[stage == s], weights=count[stage == s]) for s in stages])
        for values in (waiting, busy)
    )
    ideal = float(works.mean())
    return {
        "bubble_fraction": float(waits.mean() / window) if window else 0.0,
        "bubble_over_ideal": float(waits.mean() / ideal) if ideal else 0.0,
    }


def bottleneck(
    breakdown: Mapping[str, float], memory: Mapping, memory_bound: float = 0.0, launching: float = 0.0
) -> dict[str, str]:
    """What bounds the iteration, in the user's four words, and the figures that say so.

    memory_bound: the share of computing (0..1) that HBM bandwidth bounds, not arithmetic. Pipeline bubbles count as
    compute: GPUs that wait for other stages' computing; so does waiting for kernel launches (`launching`, s).
    """
    if short := shortfalls(memory):
        return {"bottleneck": "memory", "bottleneck_reason": "; ".join(each.brief for each in short)}
    computing = breakdown["compute"] + breakdown["optimizer"] + breakdown["other"] - launching
    waiting = breakdown["bubble"]
    parts = {
        "arithmetic": (1.0 - memory_bound) * computing,
        "HBM traffic": memory_bound * computing,
        "exposed communication": sum(value for key, value in breakdown.items() if key.startswith("exposed_")),
        "pipeline bubbles": waiting,
        "waiting for kernel launches": launching,
        "waiting for offloaded tensors": breakdown["offload"],
        "waiting for data": breakdown["data"],
    }
    shares = {
        "communication": parts["exposed communication"],
        "compute": parts["arithmetic"] + (1.0 - memory_bound) * waiting + launching,
        "memory": parts["HBM traffic"] + parts["waiting for offloaded tensors"] + memory_bound * waiting,
        "data": parts["waiting for data"],
    }
    total = sum(breakdown.values()) or 1.0
    shown = [
        f"{value / total:.0%} {name}"
        for name, value in sorted(parts.items(), key=lambda part: -part[1])
        if value >= 0.005 * total
    ]
    return {
        "bottleneck": max(shares, key=lambda key: shares[key]),
        "bottleneck_reason": "the iteration is " + ", ".join(shown),
    }
