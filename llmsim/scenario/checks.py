"""Faults that no single key shows: one function each, yielding (key, rest of the sentence).

To add a check, write a function and list it in GRID_CHECKS, CHECKS or WARNINGS below. `NOT_YET` holds what the contract
promises and the simulator cannot do; a row goes when its capability comes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import TYPE_CHECKING

from llmsim.scenario.check_faults import check_faults
from llmsim.scenario.check_idle import warn_idle
from llmsim.scenario.check_network import check_background, check_rank_map
from llmsim.scenario.check_size import check_size
from llmsim.scenario.check_split import (
    check_batch,
    check_chunks,
    check_context_kind,
    check_dispatch,
    check_encoder,
    check_expert_kernels,
    check_experts,
    check_ffn,
    check_heads,
    check_images,
    check_kv_heads,
    check_schedule,
    check_sequence,
    check_stage_layers,
)
from llmsim.scenario.check_training import (
    check_dataset,
    check_grad_reduction,
    check_hsdp,
    check_jitter,
    check_loss_chunks,
    check_offload,
    check_precision,
    check_recompute_layers,
    check_storage,
)
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
    (
        "faults",
        lambda s, a: any(f.kind not in ("slow_gpu", "slow_link", "link_down", "loader_stall") for f in s.faults),
        "this kind of fault",
    ),
)


GRID_CHECKS = (check_gpus_per_node, check_network_exists, check_grid)
CHECKS = (
    *(check_batch, check_sequence, check_images, check_heads, check_kv_heads, check_ffn, check_encoder, check_experts),
    *(check_dispatch, check_expert_kernels, check_context_kind),
    *(check_schedule, check_chunks, check_stage_layers, check_recompute_layers, check_hsdp, check_precision),
    *(check_grad_reduction, check_loss_chunks, check_offload),
    check_jitter,
    *(check_storage, check_dataset),
    *(check_faults, check_size, check_rank_map, check_background),
)
WARNINGS = (warn_tensor_across_nodes, warn_positions, warn_idle)


def run_not_yet(scenario: Scenario, architecture: Architecture | None) -> list[tuple[str, str]]:
    return [(key, f"{what} is not supported yet") for key, asks, what in NOT_YET if asks(scenario, architecture)]


def run_grid_checks(subject: Subject) -> list[tuple[str, str]]:
    return [fault for check in GRID_CHECKS for fault in check(subject)]


def run_checks(subject: Subject) -> list[tuple[str, str]]:
    return [fault for check in CHECKS for fault in check(subject)]


def run_warnings(subject: Subject) -> list[tuple[str, str]]:
    return [warning for warn in WARNINGS for warning in warn(subject)]
