"""Which layouts a search looks at: for each dotted key the values to try, and the combinations that can be valid."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from llmsim.scenario import Scenario
from llmsim.sweeping.points import Point, values_of

Space = dict[str, list[Any]]

_SHORTEST = 2048  # tokens of a sequence's part below which the default space does not split it further
_ON = {"grad_reduce": True, "param_gather": True, "pipeline": True}
_OFF = dict.fromkeys(_ON, False)


def default_space(scenario: Scenario) -> Space:
    """Values of the layout's keys that fit the model and the cluster one by one."""
    resolved, training = scenario.resolve(), scenario.training
    arch, gpus, node = resolved.architecture, resolved.gpus, resolved.gpus_per_node
    stages = [n for n in _divisors(gpus) if arch.layers % n == 0]
    chunks = [n for n in _divisors(arch.layers) if n <= 6] if max(stages) > 1 else [1]
    space: Space = {
        "parallelism.tp": [n for n in _divisors(arch.heads) if n <= node and node % n == 0],
        "parallelism.pp": stages,
        "parallelism.vpp": chunks,
        "parallelism.cp": [1, *(n for n in _powers(gpus) if training.seq_len // n >= _SHORTEST)],
        "parallelism.ep": [1, *(n for n in _powers(gpus) if arch.moe.experts % n == 0)] if arch.moe else [1],
        "parallelism.schedule": ["1f1b", "interleaved", "zb-h1"],
        "parallelism.zero": [0, 1, 3],
        "parallelism.sequence_parallel": [False, True],
        "training.micro_batch": [n for n in (1, 2, 4, 8) if n <= training.global_batch],
        "training.recompute": ["none", "selective", "full"],
        "training.overlap": [scenario.training.overlap.model_dump() | choice for choice in (_OFF, _ON)],
    }
    if scenario.parallelism.hsdp is not None:
        space["parallelism.zero"] = [1, 3]
    return space


def completed(scenario: Scenario, space: Mapping[str, Any] | None) -> Space:
    """The default space with the keys that the user gives replaced (a single value fixes a key)."""
    result = default_space(scenario)
    for key, values in (space or {}).items():
        result[key] = values_of(key, values)
    return result


def candidates(scenario: Scenario, space: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """Combinations of the space that are not plainly impossible, each layout once."""
    keys = list(space)
    nodes = space.get("cluster.nodes", [scenario.cluster.nodes])
    most = max(nodes) * scenario.resolve().gpus_per_node
    for values in product(*space.values()):
        point = dict(zip(keys, values))
        if _distinct(point, scenario, space) and _fits_grid(point, scenario, most):
            yield point


def _fits_grid(point: Point, scenario: Scenario, most: int) -> bool:
    """Cheap arithmetic that spares validation of most impossible combinations; what passes is validated."""
    p = scenario.parallelism
    tp, pp, cp = (point.get(f"parallelism.{axis}", getattr(p, axis)) for axis in ("tp", "pp", "cp"))
    if "cluster.nodes" in point:
        return tp * pp * cp <= most
    replicas, rest = divmod(most, tp * pp * cp)
    if rest or not replicas:
        return False
    micro = point.get("training.micro_batch", scenario.training.micro_batch)
    return point.get("training.global_batch", scenario.training.global_batch) % (replicas * micro) == 0


def _distinct(point: Point, scenario: Scenario, space: Mapping[str, Sequence[Any]]) -> bool:
    """Of combinations that mean the same (a schedule without a pipeline, say) only one."""
    p = scenario.parallelism
    attention = point.get("training.attention", scenario.training.attention)
    recomputes = space.get("training.recompute", ())
    if attention != "unfused" and point.get("training.recompute") == "selective" and "none" in recomputes:
        return False  # flash attention keeps nothing of its core: there is nothing to make again
    pp, vpp, tp = (point.get(f"parallelism.{axis}", getattr(p, axis)) for axis in ("pp", "vpp", "tp"))
    schedule = point.get("parallelism.schedule", p.schedule)
    if scenario.resolve().architecture.layers % (pp * vpp):
        return False
    if pp == 1 and (vpp > 1 or ("parallelism.schedule" in point and schedule != "1f1b")):
        return False
    if (schedule == "interleaved") != (vpp > 1) and schedule in ("1f1b", "gpipe", "zb-h1", "zb-h2", "interleaved"):
        return False
    return not (tp == 1 and point.get("parallelism.sequence_parallel") is True)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _powers(most: int) -> list[int]:
    return [2**n for n in range(1, most.bit_length()) if 2**n <= most]
