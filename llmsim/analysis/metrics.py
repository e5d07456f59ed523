"""The result of a run as plain numbers: times, rates, where the time goes, the bottleneck."""

from collections.abc import Mapping

import numpy as np

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
) -> dict[str, float]:
    """Throughput and utilisation. tokens: of one iteration; executed_flops: of all GPUs in one iteration."""
    model = model_flops_per_token(architecture, seq_len, causal=CAUSAL) * tokens / gpus / iteration_s
    hardware = executed_flops / gpus / iteration_s
    return {
        "iteration_time_s": iteration_s,
        "tokens_per_s": tokens / iteration_s,
        "tokens_per_s_per_gpu": tokens / iteration_s / gpus,
        "model_tflops_per_gpu": model / 1e12,
        "hardware_tflops_per_gpu": hardware / 1e12,
        "mfu": model / peak,
        "hfu": hardware / peak,
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
    breakdown: Mapping[str, float], memory: Mapping | None, memory_bound: float = 0.0
) -> dict[str, str]:
    """What bounds the iteration, in the user's four words, and the figure that says so.

    memory_bound: the share of computing (0..1) that HBM bandwidth bounds, not arithmetic.
    """
    total = sum(breakdown.values())
    computing = breakdown["compute"] + breakdown["bubble"] + breakdown["optimizer"] + breakdown["other"]
    shares = {
        "communication": sum(value for key, value in breakdown.items() if key.startswith("exposed_")),
        "compute": (1.0 - memory_bound) * computing,
        "memory": breakdown["offload"] + memory_bound * computing,
        "data": breakdown["data"],
    }
    if memory is not None and not memory["fits"]:
        worst = max(memory["per_stage"], key=lambda stage: stage["peak_gib"])
        return {
            "bottleneck": "memory",
            "bottleneck_reason": f"stage {worst['stage']} needs {worst['peak_gib']:.1f} GiB of "
            f"{memory['capacity_gib']:.1f} GiB",
        }
    name = max(shares, key=lambda key: shares[key])
    part = shares[name] / total if total else 0.0
    if name == "memory" and breakdown["offload"] < memory_bound * computing:
        return {
            "bottleneck": "memory",
            "bottleneck_reason": f"{part:.0%} of the iteration is moving bytes: HBM bandwidth bounds "
            f"{memory_bound:.0%} of the GPUs' computing",
        }
    detail = max((key for key in breakdown if _belongs(key, name)), key=lambda key: breakdown[key])
    return {
        "bottleneck": name,
        "bottleneck_reason": f"{part:.0%} of the iteration is {name}; the largest part of it is {detail} with "
        f"{breakdown[detail]:.3g} s",
    }


def _belongs(key: str, name: str) -> bool:
    if name == "communication":
        return key.startswith("exposed_")
    return {"memory": key == "offload", "data": key == "data"}.get(
        name, not key.startswith("exposed_") and key not in ("offload", "data")
    )
