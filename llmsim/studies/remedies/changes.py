"""Changes of a scenario that save memory, by kind and from mild to strong. Whether they are valid is for the scenario.

To add one, write a function that yields settings (dotted keys and values) and list it in `KINDS`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmsim.scenario import Scenario

Settings = Mapping[str, Any]


def _loss(scenario: Scenario) -> Iterator[Settings]:
    for chunks in (4, 16):
        if scenario.training.loss_chunks < chunks:
            yield {"training.loss_chunks": chunks}


def _modules(scenario: Scenario) -> Iterator[Settings]:
    """Recompute the attention core, then all modules that cost little."""
    recompute, arch = scenario.training.recompute, scenario.resolve().architecture
    if recompute.mode == "full":
        return
    if recompute.mode == "none" and scenario.training.attention == "unfused":
        yield {"training.recompute": "selective"}
    present = set(recompute.modules if recompute.mode == "selective" else ())
    cheap = {"core_attn": scenario.training.attention == "unfused", "layernorm": True, "mla_up_proj": arch.mla,
             "moe_act": arch.moe and scenario.training.expert_kernels == "separate"}  # fmt: skip
    wanted = present | {name for name, sensible in cheap.items() if sensible}
    if wanted != present:
        yield {"training.recompute": {"mode": "selective", "modules": sorted(wanted)}}


def _formats(scenario: Scenario) -> Iterator[Settings]:
    """Activations kept in fewer bits, where products are in fp8 already."""
    training = scenario.training
    if training.precision == "fp8" and training.activation_input is None:
        yield {"training.activation_input": "fp8"}


def _recompute(scenario: Scenario) -> Iterator[Settings]:
    """Recompute half of the layers of each stage, then all."""
    recompute, layout = scenario.training.recompute, scenario.resolve().layout
    order = ("none", "selective", "full")
    layers = scenario.resolve().architecture.layers // (layout.pp * layout.vpp)
    if order.index(recompute.mode) < 2 and layers >= 2:
        yield {"training.recompute": {"mode": "full", "layers": layers // 2}}
    if recompute.mode != "full" or recompute.layers is not None:
        yield {"training.recompute": "full"}


def _attention(scenario: Scenario) -> Iterator[Settings]:
    if scenario.training.attention == "unfused":
        yield {"training.attention": "flash"}


def _fusion(scenario: Scenario) -> Iterator[Settings]:
    if scenario.training.fused is not True:
        yield {"training.fused": True}


def _micro_batch(scenario: Scenario) -> Iterator[Settings]:
    size = scenario.training.micro_batch
    while size % 2 == 0:
        size //= 2
        yield {"training.micro_batch": size}


def _sharding(scenario: Scenario) -> Iterator[Settings]:
    if scenario.resolve().layout.dp * scenario.resolve().layout.cp > 1:
        for stage in range(scenario.parallelism.zero + 1, 4):
            yield {"parallelism.zero": stage}


def _sequence(scenario: Scenario) -> Iterator[Settings]:
    if scenario.parallelism.tp > 1 and not scenario.parallelism.sequence_parallel:
        yield {"parallelism.sequence_parallel": True}


def _degree(axis: str) -> Callable[[Scenario], Iterator[Settings]]:
    """Two and four times as many ranks on an axis, taken from data parallelism."""

    def settings(scenario: Scenario) -> Iterator[Settings]:
        present, dp = getattr(scenario.parallelism, axis), scenario.resolve().layout.dp
        limit = scenario.resolve().gpus_per_node if axis == "tp" else dp * present
        for factor in (2, 4):
            if present * factor <= limit and dp % factor == 0:
                yield {f"parallelism.{axis}": present * factor, "parallelism.dp": None}

    return settings


def _experts(scenario: Scenario) -> Iterator[Settings]:
    if moe := scenario.resolve().architecture.moe:
        for factor in (2, 4, 8):
            if scenario.parallelism.ep * factor <= moe.experts:
                yield {"parallelism.ep": scenario.parallelism.ep * factor}


def _offload(scenario: Scenario) -> Iterator[Settings]:
    offload = scenario.training.offload
    if offload.optimizer == "none":
        yield {"training.offload.optimizer": "cpu"}
    # Where a node's own memory or its disks are short: back to the GPUs, or to the other of the two.
    for short, other in (("cpu", "nvme"), ("nvme", "cpu")):
        outside = [name for name in ("activations", "parameters", "optimizer") if getattr(offload, name) == short]
        for place in ("none", other):
            for number in range(1, len(outside) + 1):
                yield {f"training.offload.{name}": place for name in outside[:number]}


def _gradients(scenario: Scenario) -> Iterator[Settings]:
    if scenario.training.grad_dtype == "fp32" and scenario.training.precision in ("bf16", "fp8"):
        yield {"training.grad_dtype": "bf16"}


def _optimizer(scenario: Scenario) -> Iterator[Settings]:
    if scenario.training.optimizer == "adam":
        yield {"training.optimizer": "adam16bit"}
    if scenario.training.optimizer in ("adam", "adam16bit"):
        yield {"training.optimizer": "adam8bit"}


def _nodes(scenario: Scenario) -> Iterator[Settings]:
    """More GPUs, whose time is paid for; they help where states are sharded or stages can be added."""
    nodes, p = scenario.cluster.nodes, scenario.parallelism
    shards = {} if p.zero else {"parallelism.zero": 1}
    for factor in (2, 4):
        yield {"cluster.nodes": nodes * factor, "parallelism.dp": None} | shards


KINDS: Mapping[str, Callable[[Scenario], Iterator[Settings]]] = {
    "attention": _attention,
    "fusion": _fusion,
    "loss": _loss,
    "modules": _modules,
    "formats": _formats,
    "recomputation": _recompute,
    "micro-batch": _micro_batch,
    "sequence parallelism": _sequence,
    "sharding": _sharding,
    "tensor parallelism": _degree("tp"),
    "pipeline parallelism": _degree("pp"),
    "context parallelism": _degree("cp"),
    "expert parallelism": _experts,
    "gradients": _gradients,
    "optimizer": _optimizer,
    "offload": _offload,
    "nodes": _nodes,
}
