"""Options of training, data and memory that contradict each other: faults as `checks` lists them."""

from __future__ import annotations

from llmsim.catalogue.datasets import dataset
from llmsim.cluster.host import way_exists
from llmsim.errors import UserError
from llmsim.parallel.layout import expert_places, experts_divide
from llmsim.scenario.checks.subject import Found, Subject, nearest_divisor

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
        near = nearest_divisor(s.dp, p.hsdp)
        yield "parallelism.hsdp", f"{p.hsdp} does not divide dp {s.dp}; expected a divisor, such as {near}"
        return
    spots = p.tp * p.cp * s.dp // s.etp
    if p.ep == 1 or p.tp % s.etp or spots % p.ep:
        return  # nothing to divide, or reported already
    places, inner = expert_places(p.tp, p.hsdp * p.cp, s.etp, p.ep, spots // p.ep, p.order)
    if not experts_divide(places, inner):
        told = f"{p.hsdp} leaves tp × hsdp × cp / etp = {places} places for experts in a replica"
        what = (
            f"ep {inner}" if inner == p.ep else f"the {inner} copies of an expert, which are neighbours in this order"
        )
        yield "parallelism.hsdp", f"{told}; expected a multiple or a divisor of {what}"


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
