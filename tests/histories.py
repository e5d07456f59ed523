"""Questions about one scenario, each answered in this process or, as `python histories.py KIND CALIBRATION`, alone."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import llmsim
from llmsim.program.what_if import WhatIf
from llmsim.studies.explain import explain

CALIBRATION = """
kernels: {hopper: {issue: 0.8, launch: 2.0}}
collectives: {ring_efficiency.hopper: 0.5, network_hop.Simple.ib: 0.00008, launch.hopper: 0.00004}
speeds: {between: 0.5}
"""
SPACE: Mapping[str, Any] = {
    "parallelism.tp": 1, "parallelism.pp": 1, "parallelism.cp": 1, "parallelism.ep": [4, 8], "parallelism.zero": [0, 1],
    "training.micro_batch": 1, "training.recompute": "none",
}  # fmt: skip


def scenario(calibration: str | None = None) -> llmsim.Scenario:
    """Experts across nodes, whose tokens cross once: every kind of constant that a calibration changes matters."""
    moe = {"experts": 8, "top_k": 2, "expert_ffn_hidden": 2048}
    return llmsim.Scenario(
        name="history",
        model={"layers": 2, "hidden": 1024, "heads": 8, "vocab": 32000, "moe": moe},
        cluster={"topology": "dgx-h100", "nodes": 2, "gpus_per_node": 4},
        parallelism={"ep": 8, "dispatch": "deduplicated", "zero": 1},
        training={"seq_len": 1024, "global_batch": 16},
        simulation={"calibration": calibration},
    )


def _time(calibration: str | None = None, **options: Any) -> Any:
    metrics = llmsim.simulate(scenario(calibration), **options).metrics
    return [metrics["iteration_time_s"], metrics["memory"]["peak_gib"]]


def _explained(_: str) -> Any:
    return [vars(each) for each in explain(scenario()).free]


def _found(calibration: str | None) -> Any:
    found = llmsim.search(scenario(calibration), SPACE, workers=1, top=9)
    return [[layout.point, layout.bound.seconds, layout.bound.bytes, layout.seconds] for layout in found.best]


QUESTIONS: Mapping[str, Callable[[str], Any]] = {
    "plain": lambda _: _time(),
    "calibrated": lambda file: _time(file),
    "what-if": lambda _: _time(what_if=WhatIf(between=3.0, latency=2.0, math=1.5)),
    "explain": _explained,
    "search": lambda _: _found(None),
    "calibrated search": _found,
}


def answer(kind: str, calibration: str) -> str:
    return json.dumps(QUESTIONS[kind](calibration))


if __name__ == "__main__":
    print(answer(*sys.argv[1:]))
