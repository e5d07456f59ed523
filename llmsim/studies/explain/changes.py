"""Changes of a scenario that could make it faster. Whether they are valid and fit is for the simulation to say."""

from collections.abc import Iterator, Mapping
from typing import Any

from llmsim.scenario import Scenario

Settings = Mapping[str, Any]


def changes(scenario: Scenario) -> Iterator[tuple[str, Settings]]:
    """(what it is, dotted keys and values) of every change to try."""
    yield from _kernels(scenario)
    yield from _layout(scenario)
    yield from _overlap(scenario)
    yield from _loading(scenario)
    yield from _network(scenario)


def _kernels(scenario: Scenario) -> Iterator[tuple[str, Settings]]:
    training = scenario.training
    if training.attention == "unfused":
        yield "flash attention", {"training.attention": "flash"}
    if training.fused is not True:
        yield "fused elementwise kernels", {"training.fused": True}
    for mode in ("none", "selective"):
        if training.recompute.mode not in ("none", mode):
            yield f"recompute {mode}", {"training.recompute": mode}
    yield "larger micro-batches", {"training.micro_batch": 2 * training.micro_batch}
    if training.micro_batch % 2 == 0:
        yield "smaller micro-batches", {"training.micro_batch": training.micro_batch // 2}


def _layout(scenario: Scenario) -> Iterator[tuple[str, Settings]]:
    p = scenario.parallelism
    if p.tp > 1 and not p.sequence_parallel:
        yield "sequence parallelism", {"parallelism.sequence_parallel": True}
    for axis, name in (("tp", "tensor"), ("pp", "pipeline"), ("cp", "context")):
        degree = getattr(p, axis)
        plain = {"parallelism.vpp": 1, "parallelism.schedule": "1f1b"} if axis == "pp" else {}
        yield f"more {name} parallelism", {f"parallelism.{axis}": 2 * degree, "parallelism.dp": None}
        if degree % 2 == 0:
            yield (
                f"less {name} parallelism",
                {f"parallelism.{axis}": degree // 2, "parallelism.dp": None} | (plain if degree == 2 else {}),
            )
    if p.pp > 1:
        yield "interleaved stages", {"parallelism.schedule": "interleaved", "parallelism.vpp": 2 * p.vpp}
        yield "a split backward", {"parallelism.schedule": "zb-h1", "parallelism.vpp": 1}
    if p.zero == 0:
        yield "a sharded optimizer", {"parallelism.zero": 1}
    if p.zero == 3:
        yield "parameters not sharded", {"parallelism.zero": 1}
    yield "a larger global batch", {"training.global_batch": 2 * scenario.training.global_batch}


def _overlap(scenario: Scenario) -> Iterator[tuple[str, Settings]]:
    names = {"grad_reduce": "gradient reduction", "param_gather": "parameter gathering", "pipeline": "transfers"}
    for key, name in names.items():
        if not getattr(scenario.training.overlap, key):
            yield f"overlap {name}", {f"training.overlap.{key}": True}


def _loading(scenario: Scenario) -> Iterator[tuple[str, Settings]]:
    data = scenario.data
    if data.storage is None:
        return
    yield "more loader workers", {"data.workers": 2 * data.workers}
    yield "more prefetching", {"data.prefetch": 2 * data.prefetch}
    if data.storage.kind != "nvme":
        yield "data on local disks", {"data.storage": "nvme"}
    if data.storage.bandwidth:
        yield "storage twice as fast", {"data.storage.bandwidth": 2 * data.storage.bandwidth}


def _network(scenario: Scenario) -> Iterator[tuple[str, Settings]]:
    resolved = scenario.resolve()
    if resolved.nodes > 1 and resolved.topology.node.nics:
        nic = resolved.topology.node.nic.bandwidth
        yield "a network twice as fast", {"cluster.overrides.node.nic.bandwidth": f"{16 * nic / 1e9:g}Gbps"}
