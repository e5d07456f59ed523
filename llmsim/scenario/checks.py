"""Faults that no single key shows: one function each, yielding (key, rest of the sentence).

To add a check, write a function and list it in GRID_CHECKS, CHECKS or WARNINGS below. `NOT_YET` holds what the contract
promises and the simulator cannot do; a row goes when its capability comes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import TYPE_CHECKING

from llmsim.errors import UserError
from llmsim.scenario.check_faults import check_faults
from llmsim.scenario.check_network import check_background, check_rank_map
from llmsim.scenario.check_size import check_size
from llmsim.scenario.subject import Found, Subject

if TYPE_CHECKING:
    from llmsim.model.architecture import Architecture
    from llmsim.scenario.schema import Scenario


# -- the rank grid -------------------------------------------------------------------------------------------------


def check_gpus_per_node(s: Subject) -> Found:
    used, has = s.scenario.cluster.gpus_per_node, s.topology.node.gpus
    if used and used > has:
        yield "cluster.gpus_per_node", f"{used} is more than the {has} GPUs of a {s.topology.name} node"


def check_network_exists(s: Subject) -> Found:
    nodes = s.scenario.cluster.nodes
    if nodes > 1 and (s.topology.network.kind == "none" or not s.topology.node.nics):
        yield "cluster.nodes", f"{nodes} nodes of {s.topology.name} have no network between them; expected 1"


def check_grid(s: Subject) -> Found:
    p, gpus = s.scenario.parallelism, s.gpus
    nodes = s.scenario.cluster.nodes
    have = f"{gpus} GPUs used ({nodes} {'node' if nodes == 1 else 'nodes'} × {s.gpus_per_node})"
    if p.dp is not None and s.model_parallel * p.dp != gpus:
        product = f"tp {p.tp} × cp {p.cp} × pp {p.pp} × dp {p.dp} = {s.model_parallel * p.dp}"
        fits = gpus // s.model_parallel if gpus % s.model_parallel == 0 else None
        expected = f"expected dp {fits}, or null to derive it" if fits else "expected a product equal to the GPUs"
        yield "parallelism.dp", f"{p.dp} does not fit: {product}, but the cluster has {have}; {expected}"
    elif gpus % s.model_parallel:
        product = f"tp {p.tp} × cp {p.cp} × pp {p.pp} = {s.model_parallel}"
        widest = max((axis for axis in ("tp", "cp", "pp")), key=lambda axis: getattr(p, axis))
        yield (
            f"parallelism.{widest}",
            f"{getattr(p, widest)} does not fit: {product} does not divide the {have}; expected a divisor of {gpus}",
        )


# -- data and batch ------------------------------------------------------------------------------------------------


def check_batch(s: Subject) -> Found:
    t = s.scenario.training
    unit = t.micro_batch * s.dp
    if t.global_batch % unit:
        low = t.global_batch // unit * unit
        near = f"{low} or {low + unit}" if low else f"{unit}"
        yield (
            "training.global_batch",
            f"{t.global_batch} is not a multiple of micro_batch {t.micro_batch} × dp {s.dp} = {unit}; "
            f"expected such as {near}",
        )


def check_sequence(s: Subject) -> Found:
    p, length = s.scenario.parallelism, s.scenario.training.seq_len
    if p.cp > 1 and length % (2 * p.cp):
        yield "training.seq_len", f"{length} is not a multiple of 2 × cp = {2 * p.cp}, as balanced context parts need"
    elif p.sequence_parallel and p.tp > 1 and length // p.cp % p.tp:
        unit = p.tp * p.cp
        yield (
            "training.seq_len",
            f"{length} is not a multiple of tp × cp = {unit}, as sequence_parallel needs; "
            f"expected such as {length // unit * unit or unit}, or sequence_parallel: false",
        )


# -- the model over tensor ranks -----------------------------------------------------------------------------------


def check_heads(s: Subject) -> Found:
    tp, heads = s.scenario.parallelism.tp, s.architecture.heads
    if heads % tp:
        yield (
            "parallelism.tp",
            f"{tp} does not divide the {heads} attention heads of {s.model_name}; expected a divisor, "
            f"such as {_nearest_divisor(heads, tp)}",
        )


def check_kv_heads(s: Subject) -> Found:
    tp, kv_heads = s.scenario.parallelism.tp, s.architecture.kv_heads
    if s.architecture.mla or s.architecture.heads % tp:
        return  # latent attention has no groups of heads; the heads themselves are reported already
    if max(kv_heads, tp) % min(kv_heads, tp):
        yield (
            "parallelism.tp",
            f"{tp} and the {kv_heads} key/value heads of {s.model_name} do not divide each other; expected a divisor "
            f"or a multiple of {kv_heads}",
        )


def check_ffn(s: Subject) -> Found:
    tp, moe = s.scenario.parallelism.tp, s.architecture.moe
    dense = not moe or "dense" in s.architecture.layer_kinds()
    widths = {"ffn_hidden": (s.architecture.ffn_hidden, tp)} if dense else {}
    if moe:
        widths["expert_ffn_hidden"] = (moe.expert_ffn_hidden, s.etp)
    for name, (width, ranks) in widths.items():
        if width % ranks:
            yield (
                "parallelism.tp",
                f"{tp} does not divide {name} {width} of {s.model_name}; expected a divisor, "
                f"such as {_nearest_divisor(width, ranks)}",
            )


# -- experts -------------------------------------------------------------------------------------------------------


def check_experts(s: Subject) -> Found:
    p, moe = s.scenario.parallelism, s.architecture.moe
    if p.ep == 1:
        return
    if moe is None:
        yield "parallelism.ep", f"{p.ep} needs a mixture of experts; {s.model_name} has none; expected 1"
    elif moe.experts % p.ep:
        near = _nearest_divisor(moe.experts, p.ep)
        yield (
            "parallelism.ep",
            f"{p.ep} does not divide the {moe.experts} experts of {s.model_name}; expected such as {near}",
        )
    if p.tp % s.etp:
        near = _nearest_divisor(p.tp, s.etp)
        yield "parallelism.etp", f"{s.etp} does not divide tp {p.tp}; expected a divisor, such as {near}"
        return
    places = p.tp * p.cp * s.dp // s.etp
    if places % p.ep:
        yield (
            "parallelism.ep",
            f"{p.ep} does not divide tp × cp × dp / etp = {p.tp} × {p.cp} × {s.dp} / {s.etp} = {places}; "
            f"expected a divisor, such as {_nearest_divisor(places, p.ep)}",
        )


def check_dispatch(s: Subject) -> Found:
    p, overlap = s.scenario.parallelism, s.scenario.training.overlap
    if p.dispatch_dtype and p.dispatch == "all_to_all":
        yield "parallelism.dispatch_dtype", "'fp8' goes with dispatch deduplicated only; expected null"
    if overlap.ep and (p.schedule.removesuffix("-1f1b") not in ("1f1b", "interleaved") or (p.pp > 1 and p.vpp == 1)):
        yield (
            "training.overlap.ep",
            f"true pairs forwards and backwards of interleaved 1F1B; the schedule is {p.schedule} with pp {p.pp} and "
            f"vpp {p.vpp}; expected schedule interleaved with vpp 2 or more, or pp 1, or false",
        )


def check_expert_kernels(s: Subject) -> Found:
    """cuDNN's fused grouped products exist for narrow precisions on Blackwell."""
    training, gpu = s.scenario.training, s.topology.gpu
    if training.expert_kernels != "fused":
        return
    if training.precision not in ("fp8", "nvfp4"):
        yield (
            "training.expert_kernels",
            f"'fused' writes fp8 or NVFP4, and training.precision is {training.precision}; expected separate",
        )
    elif not gpu.kernels.startswith("blackwell"):
        yield "training.expert_kernels", f"'fused' exists on Blackwell, and {gpu.name} is none; expected separate"


# -- context -------------------------------------------------------------------------------------------------------


def check_context_kind(s: Subject) -> Found:
    p, arch = s.scenario.parallelism, s.architecture
    if p.cp == 1:
        return
    if p.cp_kind == "ring" and s.scenario.training.attention == "unfused":
        yield "parallelism.cp_kind", "'ring' needs flash attention, not unfused; expected all_gather or ulysses"
    heads = arch.heads // p.tp
    if p.cp_kind == "ulysses" and heads % p.cp:
        yield (
            "parallelism.cp",
            f"{p.cp} does not divide the {heads} attention heads of a tensor rank, which ulysses spreads; expected a "
            f"divisor, such as {_nearest_divisor(heads, p.cp)}, or cp_kind ring",
        )


# -- pipeline ------------------------------------------------------------------------------------------------------


def check_schedule(s: Subject) -> Found:
    """The registry's own rules on the name, the chunks and the micro-batches; a table is read and checked."""
    from llmsim.parallel.schedules import check_schedule as check_registered
    from llmsim.parallel.schedules import schedule as find_schedule
    from llmsim.parallel.schedules.registry import is_table

    p = s.scenario.parallelism
    if not s.micro_batches:
        return  # the batch is reported already
    try:
        if is_table(p.schedule):
            find_schedule(s.schedule, p.pp, s.micro_batches, p.vpp)
        else:
            check_registered(p.schedule, p.pp, s.micro_batches, p.vpp)
    except UserError as error:
        text = str(error)
        if text.startswith("chunks: "):
            yield "parallelism.vpp", text.removeprefix("chunks: ")
        else:
            yield "parallelism.schedule", text


def check_chunks(s: Subject) -> Found:
    p = s.scenario.parallelism
    if p.schedule.startswith("interleaved") and p.vpp == 1:
        yield "parallelism.vpp", "1 is no interleaving; the schedule interleaved needs at least 2 chunks per rank"
    elif p.schedule == "dualpipe" and p.vpp == 2:
        yield "parallelism.vpp", "2 does not fit the schedule dualpipe, whose directions share one cut; expected 1"
    elif p.vpp > 1 and p.pp == 1:
        yield "parallelism.vpp", f"{p.vpp} chunks per rank need a pipeline, but pp is 1; expected vpp 1 or pp above 1"


def check_stage_layers(s: Subject) -> Found:
    p, layers = s.scenario.parallelism, s.architecture.layers
    stages = p.pp * p.vpp
    if p.stage_layers is None:
        if layers % stages:
            divisors = [n for n in range(1, layers + 1) if layers % n == 0]
            near = min(divisors, key=lambda n: abs(n - stages))
            yield (
                "parallelism.pp",
                f"{p.pp} × vpp {p.vpp} = {stages} virtual stages do not share the {layers} layers of {s.model_name} "
                f"evenly; expected a divisor of {layers} such as {near}, or parallelism.stage_layers: balanced",
            )
        return
    given = p.stage_layers
    if given == "balanced":
        if stages > layers:
            yield (
                "parallelism.stage_layers",
                f"'balanced' has {layers} layers for pp {p.pp} × vpp {p.vpp} = {stages} virtual stages; expected at "
                f"most one stage a layer",
            )
        return
    if len(given) != stages:
        yield (
            "parallelism.stage_layers",
            f"has {len(given)} entries; expected pp {p.pp} × vpp {p.vpp} = {stages}, one for each virtual stage",
        )
    if sum(given) != layers:
        yield (
            "parallelism.stage_layers",
            f"adds up to {sum(given)} layers; expected the {layers} layers of {s.model_name}",
        )


# -- memory options ------------------------------------------------------------------------------------------------


def check_recompute_layers(s: Subject) -> Found:
    recompute, p = s.scenario.training.recompute, s.scenario.parallelism
    chosen = ", ".join(recompute.modules)
    if recompute.mode != "selective" and chosen != "core_attn":
        yield (
            "training.recompute.modules",
            f"[{chosen}] goes with mode selective only; mode is {recompute.mode}; expected selective, or no modules",
        )
    if "moe_act" in recompute.modules and s.scenario.training.expert_kernels == "fused":
        yield (
            "training.recompute.modules",
            "moe_act has no kernel of its own in training.expert_kernels fused; expected separate, or no moe_act",
        )
    if recompute.layers is None:
        return
    if recompute.mode != "full":
        yield (
            "training.recompute.layers",
            f"{recompute.layers} goes with mode full only; mode is {recompute.mode}; expected mode full, or no layers",
        )
        return
    even = -(-s.architecture.layers // (p.pp * p.vpp))
    deepest = max(p.stage_layers) if isinstance(p.stage_layers, tuple) else even
    if recompute.layers > deepest:
        yield (
            "training.recompute.layers",
            f"{recompute.layers} is more than the {deepest} layers of a virtual stage; expected at most {deepest}",
        )


def check_loss_chunks(s: Subject) -> Found:
    training = s.scenario.training
    tokens = training.micro_batch * training.seq_len // s.scenario.parallelism.cp
    if training.loss_chunks > tokens:
        yield "training.loss_chunks", f"{training.loss_chunks} is more than the {tokens} tokens of a micro-batch"


def check_hsdp(s: Subject) -> Found:
    p = s.scenario.parallelism
    if p.hsdp is None:
        return
    if p.zero == 0:
        yield "parallelism.hsdp", f"{p.hsdp} shards nothing with zero 0; expected zero 1, 2 or 3, or hsdp null"
    if s.dp % p.hsdp:
        near = _nearest_divisor(s.dp, p.hsdp)
        yield "parallelism.hsdp", f"{p.hsdp} does not divide dp {s.dp}; expected a divisor, such as {near}"


def check_grad_reduction(s: Subject) -> Found:
    if s.scenario.training.grad_reduction == "reduce_scatter" and s.scenario.parallelism.zero == 0:
        yield (
            "training.grad_reduction",
            "'reduce_scatter' leaves each rank a share of the gradients, but with zero 0 each needs all; "
            "expected auto or all_reduce, or zero 1 or more",
        )
    elif s.scenario.training.grad_reduction == "all_reduce" and s.scenario.parallelism.zero >= 2:
        yield (
            "training.grad_reduction",
            f"'all_reduce' gives each rank all gradients, but zero {s.scenario.parallelism.zero} shards them; "
            "expected auto or reduce_scatter, or zero 0 or 1",
        )


def check_offload(s: Subject) -> Found:
    from llmsim.cluster.host import way_exists

    p, asked = s.scenario.parallelism, s.scenario.training.offload
    if asked.optimizer != "none" and s.scenario.training.optimizer == "muon":
        yield (
            "training.offload.optimizer",
            f"{asked.optimizer!r} with muon would multiply matrices on a CPU; expected none, or another optimizer",
        )
    if asked.optimizer != "none" and p.zero == 0 and s.dp * p.cp > 1:
        yield (
            "training.offload.optimizer",
            f"{asked.optimizer!r} with zero 0 has each of dp × cp = {s.dp * p.cp} ranks update every parameter on its "
            "CPU; expected parallelism.zero 1, 2 or 3, or none",
        )
    if asked.parameters != "none" and p.zero < 3:
        yield (
            "training.offload.parameters",
            f"{asked.parameters!r} fetches parameters layer by layer, as zero 3 does, but parallelism.zero is "
            f"{p.zero}; expected zero 3, or none",
        )
    elif asked.parameters != "none" and asked.optimizer == "none":
        yield (
            "training.offload.parameters",
            f"{asked.parameters!r} has nowhere to update parameters with the optimizer on the GPU; expected "
            "training.offload.optimizer cpu or nvme too, or none",
        )
    for key in ("optimizer", "activations", "parameters"):
        place = getattr(asked, key)
        if place == "nvme" and not s.topology.node.nvme.capacity:
            name = f"training.offload.{key}"
            yield name, f"'nvme' needs local disks, and a {s.topology.name} node has none; expected cpu or none"
        elif place != "none" and not way_exists(s.topology, place):
            others = "cpu or none" if place == "nvme" else "none"
            reach = f"{place!r} is out of reach of some GPUs of {s.topology.name}; expected {others}"
            yield f"training.offload.{key}", reach


def check_jitter(s: Subject) -> Found:
    simulation = s.scenario.simulation
    if simulation.jitter and simulation.detail == "block":
        yield (
            "simulation.jitter",
            f"{simulation.jitter:g} varies single kernels, and detail block merges them; "
            "expected simulation.detail kernel, or jitter 0",
        )


def check_storage(s: Subject) -> Found:
    storage = s.scenario.data.storage
    if storage is None:
        return
    if storage.kind == "nvme" and not s.topology.node.nvme.capacity:
        yield "data.storage.kind", f"'nvme' needs local disks, and a {s.topology.name} node has none; expected shared"
    elif storage.kind == "shared" and storage.bandwidth is None and s.topology.storage.read_bandwidth is None:
        yield (
            "data.storage.bandwidth",
            f"missing, and topology {s.topology.name} has no storage.read_bandwidth; expected such as 10 GB/s",
        )


def check_dataset(s: Subject) -> Found:
    from llmsim.catalogue.datasets import dataset

    data = s.scenario.data
    if data.dataset is None:
        return
    try:
        known = dataset(data.dataset)
    except UserError as error:
        yield "data.dataset", str(error)
        return
    if known.tokens is None and data.dataset_tokens is None:
        yield "data.dataset", f"{known.name} has no published number of tokens; expected data.dataset_tokens beside it"


def check_precision(s: Subject) -> Found:
    gpu, precision = s.topology.gpu, s.scenario.training.precision
    if precision not in gpu.peak_flops:
        accepted = ", ".join(gpu.peak_flops)
        yield "training.precision", f"{precision!r} is not something a {gpu.label} computes in; expected {accepted}"


# -- allowed, but probably not meant -------------------------------------------------------------------------------


def warn_tensor_across_nodes(s: Subject) -> Found:
    tp = s.scenario.parallelism.tp
    if tp > s.gpus_per_node:
        yield (
            "parallelism.tp",
            f"{tp} spans nodes of {s.gpus_per_node} GPUs; tensor parallelism over the network is slow",
        )
    elif s.gpus > s.gpus_per_node and gcd(tp, s.gpus_per_node) != tp:
        yield "parallelism.tp", f"{tp} does not divide the {s.gpus_per_node} GPUs of a node; some groups span two nodes"


def warn_positions(s: Subject) -> Found:
    length, longest = s.scenario.training.seq_len, s.architecture.max_positions
    if s.architecture.position == "learned" and longest and length > longest:
        yield "training.seq_len", f"{length} is more than the {longest} learned positions of {s.model_name}"


# -- promised, not built -------------------------------------------------------------------------------------------

Wants = Callable[["Scenario", "Architecture | None"], bool]

# (key, whether the scenario asks for it, what is not supported yet)
NOT_YET: tuple[tuple[str, Wants, str], ...] = (
    ("model", lambda s, a: a is not None and a.encoder is not None, "a vision encoder"),
    (
        "faults",
        lambda s, a: any(f.kind not in ("slow_gpu", "slow_link", "link_down", "loader_stall") for f in s.faults),
        "this kind of fault",
    ),
)


GRID_CHECKS = (check_gpus_per_node, check_network_exists, check_grid)
CHECKS = (
    *(check_batch, check_sequence, check_heads, check_kv_heads, check_ffn, check_experts),
    *(check_dispatch, check_expert_kernels, check_context_kind),
    *(check_schedule, check_chunks, check_stage_layers, check_recompute_layers, check_hsdp, check_precision),
    *(check_grad_reduction, check_loss_chunks, check_offload),
    check_jitter,
    *(check_storage, check_dataset),
    *(check_faults, check_size, check_rank_map, check_background),
)
WARNINGS = (warn_tensor_across_nodes, warn_positions)


def run_not_yet(scenario: Scenario, architecture: Architecture | None) -> list[tuple[str, str]]:
    return [(key, f"{what} is not supported yet") for key, asks, what in NOT_YET if asks(scenario, architecture)]


def run_grid_checks(subject: Subject) -> list[tuple[str, str]]:
    return [fault for check in GRID_CHECKS for fault in check(subject)]


def run_checks(subject: Subject) -> list[tuple[str, str]]:
    return [fault for check in CHECKS for fault in check(subject)]


def run_warnings(subject: Subject) -> list[tuple[str, str]]:
    return [warning for warn in WARNINGS for warning in warn(subject)]


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((n for n in range(1, number + 1) if number % n == 0), key=lambda n: abs(n - wanted))
