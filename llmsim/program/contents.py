"""What each virtual stage holds: its layers, the embedding, the head; their steps and their parameters."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from llmsim.cost.kernels import KernelCosts, KernelTraits
from llmsim.model.activations import layer_activation_bytes
from llmsim.model.layer import embedding_steps, head_steps, layer_steps
from llmsim.model.operators import LayerSteps
from llmsim.model.parameters import EdgeParameters, embedding_parameters, head_parameters, layer_parameters
from llmsim.model.shard import Shard
from llmsim.model.work import Communication
from llmsim.parallel.stages import balance_layers, split_layers
from llmsim.program.gradients import Shares
from llmsim.program.iteration import StageProgram
from llmsim.program.passes import StageSteps
from llmsim.scenario import Scenario

# Most scenarios of a sweep or a search share most of their layers.
_layer_steps = lru_cache(maxsize=1024)(layer_steps)
_embedding_steps = lru_cache(maxsize=256)(embedding_steps)
_head_steps = lru_cache(maxsize=256)(head_steps)


def stage_programs(scenario: Scenario, shard: Shard, stages: int) -> tuple[StageProgram, ...]:
    """Steps and parameters of each of `stages` virtual stages."""
    architecture = scenario.resolve().architecture
    layers_of = _Layers(scenario, shard)
    given = scenario.parallelism.stage_layers
    if given == "balanced":
        given = _balanced(scenario, shard, layers_of, stages)
    result = []
    for number, layers in enumerate(split_layers(architecture.layers, stages, given)):
        parts: list[tuple[int, LayerSteps, Shares]] = []
        if number == 0:
            edge = embedding_parameters(architecture, scenario.training.seq_len)
            parts.append((-1, _embedding_steps(architecture, shard), _edge_shares(edge, shard)))
        for place, layer in enumerate(layers):
            parts.append((layer, *layers_of.layer(layer, place)))
        if number == stages - 1:
            edge = head_parameters(architecture, copy_tied=stages > 1)
            parts.append((-1, _head_steps(architecture, shard), _edge_shares(edge, shard)))
        steps = StageSteps(tuple((layer, steps) for layer, steps, _ in parts))
        kept = tuple(layers_of.kept(layer, place) for place, layer in _places(parts))
        result.append(StageProgram(steps, tuple(shares for *_, shares in parts), kept))
    return tuple(result)


def _balanced(scenario: Scenario, shard: Shard, layers_of: "_Layers", stages: int) -> tuple[int, ...]:
    """Layers of each virtual stage by the time of their kernels, those of the embedding and of the head counted."""
    resolved = scenario.resolve()
    kernels = KernelCosts(resolved.topology.gpu, KernelTraits(sustained=True))

    def seconds(steps: LayerSteps) -> float:
        works = (step.work for step in (*steps.forward, *steps.backward))
        times = (kernels.time(work) for work in works if not isinstance(work, Communication))
        return sum(time.seconds + time.launch for time in times)

    costs = [seconds(layers_of.layer(layer, 0)[0]) for layer in range(resolved.architecture.layers)]
    edges = (seconds(make(resolved.architecture, shard)) for make in (_embedding_steps, _head_steps))
    return balance_layers(costs, stages, *edges)


def recompute_mode(scenario: Scenario, place: int) -> str:
    """The recompute mode of the layer at a place of its virtual stage."""
    recompute = scenario.training.recompute
    return recompute.mode if recompute.layers is None or place < recompute.layers else "none"


class _Layers:
    """Steps and parameters of layers, made once for each kind that a scenario has."""

    def __init__(self, scenario: Scenario, shard: Shard) -> None:
        self.scenario, self.shard = scenario, shard
        self.architecture = scenario.resolve().architecture
        self.kinds, self.windows = self.architecture.layer_kinds(), self.architecture.layer_windows()
        self.known: dict[tuple[str, int, str], tuple[LayerSteps, Shares]] = {}

    def layer(self, layer: int, place: int) -> tuple[LayerSteps, Shares]:
        key = (self.kinds[layer], self.windows[layer], recompute_mode(self.scenario, place))
        if key not in self.known:
            self.known[key] = self._made(*key)
        return self.known[key]

    def kept(self, layer: int, place: int) -> float:
        """Bytes that a layer keeps from its forward to its backward; counted only where they are moved."""
        if layer < 0 or self.scenario.training.offload.activations == "none":
            return 0.0
        shard = replace(self.shard, recompute=recompute_mode(self.scenario, place))
        return sum(layer_activation_bytes(self.architecture, shard, self.kinds[layer]).values())

    def _made(self, kind: str, window: int, mode: str) -> tuple[LayerSteps, Shares]:
        architecture, shard = self.architecture, self.shard
        steps = _layer_steps(architecture, replace(shard, recompute=mode), kind, window)
        parameters = layer_parameters(architecture, kind)
        dense, expert = parameters.on_rank(shard.tp, shard.ep, shard.expert_split, architecture.kv_heads)
        return steps, Shares(dense, expert)


def _places(parts: Sequence[tuple]) -> Iterator[tuple[int, int]]:
    """(place among the layers of its virtual stage, layer) of each part; the embedding and the head are layer -1."""
    place = 0
    for layer, *_ in parts:
        yield place, layer
        place += layer >= 0


def _edge_shares(edge: EdgeParameters, shard: Shard) -> Shares:
    return Shares(edge.sharded / shard.tp + edge.replicated, 0.0)
