"""The sections of a scenario file: every key that exists, what it accepts and its default (SI units inside)."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WrapValidator

from llmsim.catalogue.frameworks import frameworks
from llmsim.catalogue.host_constants import host_ways
from llmsim.cluster.topology import MOST_GPUS
from llmsim.errors import nearest
from llmsim.model.shard import ALL_FUSIONS, RECOMPUTE_MODULES, STORED
from llmsim.model.sublayers import MOST_LAYERS
from llmsim.parallel.layout import AXES
from llmsim.scenario.fields import (
    Degree,
    Duration,
    Flag,
    Seconds,
    Text,
    Tokens,
    choice,
    empty_when_null,
    quantity,
    refuse,
    show,
    whole,
)

RECOMPUTE_MODES = ("none", "selective", "full")
FAULT_KINDS = ("slow_gpu", "slow_link", "link_down", "gpu_down", "node_down", "loader_stall")

Place = choice("none", "cpu", "nvme", aliases={None: "none", False: "none"})
Price = quantity("number", 0.0, 1e6, open_end=False)


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    """Nested overrides as the dotted keys that topology files use."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refuse(f"{show(value)} is not a mapping; expected dotted keys, as {{node.nic.bandwidth: 100 Gbps}}")
    flat: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and not item:
            raise refuse(f"{prefix}{key}: {{}} changes nothing; expected a value, such as 100 Gbps, or no such key")
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat


def _rank_map(value: object) -> object:
    """The GPU of each rank; None: rank r on GPU r; round-robin: node by node, as a launcher with cyclic placement."""
    if value is None or value == "round-robin":
        return value
    if not isinstance(value, list | tuple):
        raise refuse(f"{show(value)} is no placement; expected null, round-robin, or a list with the GPU of each rank")
    return tuple(value)


class ClusterSection(Section):
    """The cluster: a topology file, and how much of it is used."""

    topology: Text = Field(examples=["dgx-h100"])
    nodes: whole(1, 10**6) = 1
    gpus_per_node: whole(1, 4096) | None = None
    # A lambda, since pydantic 2.6 hands more than the value to a function that can take more.
    overrides: Annotated[dict[str, Any], BeforeValidator(lambda value: _flat(value))] = {}
    routing: choice("ideal", "ecmp-hash") = "ideal"  # the hash is seeded by simulation.seed
    rank_map: Annotated[str | tuple[whole(0, MOST_GPUS), ...] | None, BeforeValidator(_rank_map)] = None


def _order(value: object) -> tuple[str, ...]:
    axes = tuple(value) if isinstance(value, list | tuple) else str(value).split("-")
    if sorted(map(str, axes)) != sorted(AXES):
        raise refuse(f"{show(value)} is not an order of ranks; expected a permutation of [{', '.join(AXES)}]")
    return tuple(axes)


def _stage_layers(value: object, read: Callable[[object], tuple]) -> tuple[int, ...] | str | None:
    """`balanced`, or the layers of each virtual stage."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, list | tuple):
        raise refuse(
            f"{show(value)} is not a list; expected layers per virtual stage, such as [11, 12, 12, 11], or balanced"
        )
    return read(tuple(value))


class ParallelismSection(Section):
    """How the model and the batch are cut over ranks."""

    tp: Degree = 1
    pp: Degree = 1
    vpp: whole(1, MOST_LAYERS) = 1
    cp: Degree = 1
    ep: Degree = 1
    etp: Degree | None = None  # tensor ranks that share an expert; None: 1 with sequence parallelism, else tp
    dp: Degree | None = None
    # How keys and values meet queries: passed around a ring, gathered, or heads traded for positions
    cp_kind: choice("ring", "all_gather", "ulysses") = "ring"
    # deduplicated: a token crosses to each node once, whatever experts it has there (DeepEP, HybridEP)
    dispatch: choice("all_to_all", "deduplicated") = "all_to_all"
    dispatch_dtype: choice("fp8") | None = None  # of tokens on their way to experts; None: as activations
    # Tokens of the busiest rank's experts over the mean; all wait for it
    expert_imbalance: quantity("number", 1.0, 1e6, open_end=False) = 1.0
    sequence_parallel: Flag = True
    schedule: Text = "1f1b"
    regather: Flag = True  # sequence-parallel inputs are gathered again in the backward pass, not kept whole
    scatter_gather: Flag = True  # tp ranks send a part each of what passes between stages, and gather it again
    zero: whole(0, 3) = 0
    hsdp: Degree | None = None
    reshard: Flag = True  # zero 3: drop gathered parameters after each pass (False: once an iteration)
    order: Annotated[tuple[str, ...], BeforeValidator(_order)] = AXES
    # balanced: the slowest virtual stage is as fast as it can be, embedding and head counted; None: equal counts
    stage_layers: Annotated[tuple[whole(0, MOST_LAYERS), ...], WrapValidator(_stage_layers)] = None


def _modules(value: object) -> tuple[str, ...]:
    names = ", ".join(RECOMPUTE_MODULES)
    if not isinstance(value, list | tuple) or not value:
        raise refuse(f"{show(value)} is not a list of modules; expected some of {names}")
    for name in value:
        if name not in RECOMPUTE_MODULES:
            hint = nearest(name, RECOMPUTE_MODULES) if isinstance(name, str) else ""
            raise refuse(f"{show(name)} is no module that can be recomputed; expected among {names}{hint}")
    return tuple(sorted(set(value)))


class Recompute(Section):
    """mode: none | selective | full; `layers` of each virtual stage, None being all of them.

    modules: what selective recomputation makes again, as Megatron-Core's `recompute_modules`.
    """

    mode: choice(*RECOMPUTE_MODES, aliases={None: "none", False: "none"}) = "none"
    layers: whole(1, MOST_LAYERS) | None = None
    modules: Annotated[tuple[str, ...], BeforeValidator(_modules)] = ("core_attn",)


def _recompute(value: object) -> object:
    return value if isinstance(value, Mapping | Recompute) else {"mode": value}


class Overlap(Section):
    """Which communication runs beside computation."""

    grad_reduce: Flag = True
    param_gather: Flag = True
    pipeline: Flag = True
    ep: Flag = False  # dispatch and combine of one micro-batch beside another's computation (Megatron's combined 1F1B)
    tp: Flag = False  # products pipelined chunk by chunk with their tensor-parallel collectives
    tp_grad: Flag = True  # the collective of an input gradient beside the product of the weight gradient


class Offload(Section):
    """Where state lives outside the GPU."""

    optimizer: Place = "none"
    activations: Place = "none"
    parameters: Place = "none"


def _fused(value: object) -> object:
    """true, false, or the kernels that are fused by name."""
    if isinstance(value, bool):
        return value
    names = ", ".join(sorted(ALL_FUSIONS))
    if not isinstance(value, list | tuple):
        raise refuse(f"{show(value)} is not known; expected true or false, or a list of fused kernels among {names}")
    for name in value:
        if not isinstance(name, str) or name not in ALL_FUSIONS:
            raise refuse(
                f"{show(name)} is no kernel that can be fused; expected among {names}{nearest(name, ALL_FUSIONS)}"
            )
    return tuple(value)


class Host(Section):
    """Seconds that the host needs for one kernel, one collective, and one parameter tensor of the optimizer step.

    stall: share that is added for each further rank of the tensor-parallel group, where pipeline messages cross nodes.
    experts, experts_backward: what a GPU waits in each layer of experts whose token counts the host reads back.
    """

    kernel: Duration = 0.0
    communication: Duration = 0.0
    tensor: Duration = 0.0
    stall: quantity("number", 0.0, 1000.0, open_end=False) = 0.0
    experts: Duration = 0.0
    experts_backward: Duration = 0.0


def _host(value: object) -> object:
    """The name of a way to launch (`catalogue/host.yaml`), or its costs."""
    if value is None or isinstance(value, Mapping | Host):
        return value or {}

    ways = host_ways()
    if not isinstance(value, str) or value not in ways:
        hint = nearest(value, ways) if isinstance(value, str) else ""
        raise refuse(f"{show(value)} is no way to launch; expected one of {', '.join(ways)}, or costs{hint}")
    return asdict(ways[value])


def _framework(value: object) -> object:
    """The name of a framework; its traits (`catalogue/measured/frameworks.yaml`) are the defaults of other keys."""
    if value is None:
        return None

    if not isinstance(value, str) or value not in frameworks():
        hint = nearest(value, frameworks()) if isinstance(value, str) else ""
        raise refuse(f"{show(value)} is no known framework; expected one of {', '.join(frameworks())}{hint}")
    return value


class TrainingSection(Section):
    """Batch, arithmetic and the choices of the training framework."""

    framework: Annotated[str | None, BeforeValidator(_framework)] = None
    seq_len: whole(1, 10**8) = 2048
    # Of each sequence, for a model with a vision encoder; None: as the model says
    images: whole(1, 10**4) | None = None
    global_batch: whole(1, 10**9) = Field(examples=[512])
    micro_batch: whole(1, 10**6) = 1
    precision: choice("fp32", "tf32", "fp16", "bf16", "fp8", "nvfp4") = "bf16"
    grad_dtype: choice("fp32", "fp16", "bf16") = "fp32"
    # auto: reduce_scatter where optimizer states are sharded; DeepSpeed's pipelines all-reduce even then
    grad_reduction: choice("auto", "all_reduce", "reduce_scatter") = "auto"
    recompute: Annotated[Recompute, BeforeValidator(_recompute)] = Recompute(mode="selective")
    activation_input: choice(*STORED) | None = None  # kept input of an MLP's activation; None: as computed
    attention_output: choice(*STORED) | None = None  # kept output of flash attention; None: as computed
    attention: choice("flash", "flash1", "flash2", "flash3", "unfused") = "flash"
    loss_chunks: whole(1, 10**8) = 1  # parts of the tokens whose logits are made, used and dropped one after the other
    fused: Annotated[bool | tuple[str, ...], BeforeValidator(_fused)] = True
    # separate: kernels for each expert; fused: one for all, with activation and conversion to fp8 or NVFP4 in it
    expert_kernels: choice("separate", "fused") = "separate"
    optimizer: choice("adam", "sgd", "adafactor", "muon", "adam16bit", "adam8bit") = "adam"
    overlap: Annotated[Overlap, empty_when_null()] = Overlap()
    accumulate_locally: Flag = True
    # Parameters whose gradients are reduced at once; null: as Megatron-LM, whole layers
    bucket: quantity("number", 1.0, 1e15, open_end=False) | None = None
    # How the host launches kernels; ahead: it never limits
    host: Annotated[Host, BeforeValidator(_host)] = Host()
    offload: Annotated[Offload, empty_when_null()] = Offload()
    tokens: Tokens | None = None


class StorageSection(Section):
    """Where the data lie. bandwidth: bytes/s of all readers together; None: what the topology file says."""

    kind: choice("shared", "nvme") = "shared"
    bandwidth: quantity("bandwidth", 1e3, 1e15, open_end=False) | None = None
    latency: Duration = 0.0


def _storage(value: object) -> object:
    """`nvme` or `shared` alone, a bandwidth alone, or the whole section."""
    if value is None or isinstance(value, Mapping | StorageSection):
        return value
    return {"kind": value} if isinstance(value, str) and value.isalpha() else {"bandwidth": value}


class DataSection(Section):
    """The input pipeline. worker_rate: tokens/s that one worker prepares; None: without limit."""

    dataset: Text | None = None
    dataset_tokens: Tokens | None = None
    bytes_per_token: quantity("number", 0.0, 1e9) = 2.0
    storage: Annotated[StorageSection | None, BeforeValidator(_storage)] = None
    worker_rate: quantity("number", 1e-3, 1e15, open_end=False) | None = None
    workers: whole(1, 10**4) = 8
    prefetch: whole(0, 10**4) = 2
    epochs: quantity("number", 0.0, 1e6) = 1.0


class SimulationSection(Section):
    """How the simulation is done; nothing here changes what is simulated, except jitter."""

    iterations: whole(1, 1000) = 1
    detail: choice("kernel", "block") = "kernel"
    fold: choice("auto", "off", aliases={False: "off", True: "auto"}) = "auto"
    jitter: quantity("number", 0.0, 10.0, open_end=False) = 0.0
    seed: whole(0, 10**15) = 0
    calibration: Text | None = None  # a file of `llmsim calibrate`


def _place(example: str) -> Any:
    """The name of a GPU, a node or a link; whether the cluster has it is for a check to say."""

    def read(value: object) -> object:
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise refuse(f"{show(value)} is not a name; expected such as {example}")
        return value

    return Annotated[str, BeforeValidator(read)]


class Fault(Section):
    """Something that goes wrong on one gpu (`node3.gpu5`), node (`node3`) or link, from a moment on."""

    kind: choice(*FAULT_KINDS)
    gpu: _place("node3.gpu5") | None = None
    node: _place("node3") | None = None
    link: _place("node3.nic2") | None = None
    factor: quantity("number", 1e-6, 1.0, open_end=False) | None = None
    start: Seconds = Field(default=0.0, alias="from")
    until: Seconds | None = None


class Background(Section):
    """Traffic of others: `rate` bytes/s from a GPU or a node to another (`node3.gpu5`, `node3`), all the time."""

    source: Text = Field(alias="from", examples=["node0"])
    target: Text = Field(alias="to", examples=["node1"])
    rate: quantity("bandwidth", 1.0, 1e15, open_end=False) = Field(examples=["25 GB/s"])


class EconomicsSection(Section):
    """Prices. pue: energy of the site over energy of its computers. None: the catalogue's (`prices.yaml`)."""

    gpu_hour_usd: Price | None = None
    kwh_usd: Price = 0.10
    kg_co2_per_kwh: quantity("number", 0.0, 1000.0, open_end=False) | None = None
    pue: quantity("number", 1.0, 100.0, open_end=False) = 1.2
