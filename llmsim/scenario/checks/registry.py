"""Faults that no single key shows: one function each, yielding (key, rest of the sentence).

To add a check, write a function and list it in GRID_CHECKS, CHECKS or WARNINGS below.
"""

from __future__ import annotations

from llmsim.scenario.checks.faults import check_faults
from llmsim.scenario.checks.grid import (
    check_gpus_per_node,
    check_grid,
    check_network_exists,
    warn_positions,
    warn_tensor_across_nodes,
)
from llmsim.scenario.checks.idle import warn_idle
from llmsim.scenario.checks.job import JOB_CHECKS
from llmsim.scenario.checks.network import check_background, check_rank_map
from llmsim.scenario.checks.parallelism import (
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
    check_linear_heads,
    check_schedule,
    check_sequence,
    check_special_attention,
    check_stage_layers,
)
from llmsim.scenario.checks.size import check_size
from llmsim.scenario.checks.subject import Subject
from llmsim.scenario.checks.training import (
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

GRID_CHECKS = (check_gpus_per_node, check_network_exists, check_grid)
CHECKS = (
    *(
        check_batch,
        check_sequence,
        check_images,
        check_heads,
        check_kv_heads,
        check_linear_heads,
        check_special_attention,
        check_ffn,
        check_encoder,
        check_experts,
    ),
    *(check_dispatch, check_expert_kernels, check_context_kind),
    *(check_schedule, check_chunks, check_stage_layers, check_recompute_layers, check_hsdp, check_precision),
    *(check_grad_reduction, check_loss_chunks, check_offload),
    check_jitter,
    *(check_storage, check_dataset),
    *(check_faults, check_size, check_rank_map, check_background),
    *JOB_CHECKS,
)
WARNINGS = (warn_tensor_across_nodes, warn_positions, warn_idle)


def run_grid_checks(subject: Subject) -> list[tuple[str, str]]:
    return [fault for check in GRID_CHECKS for fault in check(subject)]


def run_checks(subject: Subject) -> list[tuple[str, str]]:
    return [fault for check in CHECKS for fault in check(subject)]


def run_warnings(subject: Subject) -> list[tuple[str, str]]:
    return [warning for warn in WARNINGS for warning in warn(subject)]
