"""Which layouts a search looks at: for each dotted key the values to try, and the combinations that can be valid."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from llmsim.scenario import Scenario
from llmsim.studies.sweep.points import Point, values_of

Space = dict[str, list[Any]]

_MOST_UNEVEN = 1.25  # layers of the fullest virtual stage over their mean; more leaves too many GPUs waiting
_MOST_CHUNKS = 6
_SHORTEST = 2048  # tokens of a sequence's part below which the default space does not split it further
_IN_A_V = ("zb-v", "zb-v-torch", "dualpipe-v")  # two chunks a rank
_PAIRED = ("dualpipe", "dualpipe-v")
_CHUNKS = ("1f1b", "gpipe", "gpipe-lifo", "zb-h1", "zb-h2", "interleaved", "dualpipe", *_IN_A_V)  # that is known of
_OVERLAPPED = {"grad_reduce": True, "param_gather": True, "pipeline": True}


def default_space(scenario: Scenario) -> Space:
    """Values of the layout's keys that fit the model and the cluster one by one."""
    resolved, training = scenario.resolve(), scenario.training
    arch, gpus, node = resolved.architecture, resolved.gpus, resolved.gpus_per_node
    stages = [n for n in _divisors(gpus) if any(_shared_out(arch.layers, n, v) for v in range(1, _MOST_CHUNKS + 1))]
    chunks = [v for v in range(1, _MOST_CHUNKS + 1) if any(_shared_out(arch.layers, n, v) for n in stages if n > 1)]
    space: Space = {
        "parallelism.tp": [n for n in _divisors(arch.heads) if n <= node and node % n == 0],
        "parallelism.pp": stages,
        "parallelism.vpp": chunks or [1],
        "parallelism.cp": [1, *(n for n in _powers(gpus) if training.seq_len // n >= _SHORTEST)],
        "parallelism.ep": [1, *(n for n in _powers(gpus) if arch.moe.experts % n == 0)] if arch.moe else [1],
        "parallelism.stage_layers": [None, "balanced"],
        "parallelism.schedule": ["1f1b", "interleaved", "zb-h1", "zb-v", *(_PAIRED if arch.moe else ())],
        "parallelism.zero": [0, 1, 2, 3],
        "parallelism.sequence_parallel": [False, True],
        "training.micro_batch": [n for n in (1, 2, 4, 8) if n <= training.global_batch],
        "training.recompute": ["none", "selective", "full"],
    }
    own = training.overlap.model_dump()
    space["training.overlap"] = [own, *([own | _OVERLAPPED] if own != own | _OVERLAPPED else [])]
    if scenario.parallelism.hsdp is not None:
        space["parallelism.zero"].remove(0)
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
    if point.get("training.global_batch", scenario.training.global_batch) % (replicas * micro):
        return False
    ep, shared = point.get("parallelism.ep", p.ep), point.get("parallelism.sequence_parallel", p.sequence_parallel)
    return tp * cp * replicas % (ep * (p.etp or (1 if shared else tp))) == 0 or ep == 1


def _distinct(point: Point, scenario: Scenario, space: Mapping[str, Sequence[Any]]) -> bool:
    """Of combinations that mean the same (a schedule without a pipeline, say) only one, and none that nobody runs."""
    p = scenario.parallelism
    attention = point.get("training.attention", scenario.training.attention)
    recomputes = space.get("training.recompute", ())
    if attention != "unfused" and point.get("training.recompute") == "selective" and "none" in recomputes:
        return False  # flash attention keeps nothing of its core: there is nothing to make again
    pp, vpp, tp, ep, zero, schedule, cut = (
        point.get(f"parallelism.{key}", getattr(p, key))
        for key in ("pp", "vpp", "tp", "ep", "zero", "schedule", "stage_layers")
    )
    if pp == 1 and (vpp > 1 or ("parallelism.schedule" in point and schedule != "1f1b")):
        return False
    if schedule in _CHUNKS and (vpp != 2 if schedule in _IN_A_V else (vpp > 1) != (schedule == "interleaved")):
        return False
    if schedule in _PAIRED and ep == 1 and _open(space, "parallelism.schedule"):
        return False  # they hide the exchange of experts
    if pp > 1 and zero == 2 and _open(space, "parallelism.zero"):
        return False  # gradients would be reduced for each micro-batch; DeepSpeed's pipelines refuse it
    layers, virtual = scenario.resolve().architecture.layers, pp * vpp
    divides = layers % virtual == 0
    if cut is None and not divides:
        return False
    if cut == "balanced" and _open(space, "parallelism.stage_layers"):
        uneven = _open(space, "parallelism.pp") and not _shared_out(layers, pp, vpp)
        if divides or uneven:
            return False
    return not (tp == 1 and point.get("parallelism.sequence_parallel") is True)


def _open(space: Mapping[str, Sequence[Any]], key: str) -> bool:
    """Whether the space leaves a choice."""
    return len(space.get(key, ())) > 1


def _shared_out(layers: int, pp: int, vpp: int) -> bool:
    """Whether a pipeline of these virtual stages is worth a look.

    One that divides the layers is cut into chunks that divide them too; any other is, as long as it is not too uneven
    (Llama 3's 126 layers on 128 stages, DeepSeek-V3's 61 on 16).
    """
    if layers % pp == 0:
        return layers % (pp * vpp) == 0
    fullest = -(-layers // (pp * vpp))
    return fullest * pp * vpp <= _MOST_UNEVEN * layers


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _powers(most: int) -> list[int]:
    return [2**n for n in range(1, most.bit_length()) if 2**n <= most]
