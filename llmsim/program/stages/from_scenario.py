"""What a scenario chooses for one rank: how it computes its share of a layer, and how it runs an iteration."""

from llmsim.model.shard import ALL_FUSIONS, NO_FUSIONS, Shard
from llmsim.program.stages.fsdp import Sharding
from llmsim.program.stages.offload import Offloading
from llmsim.program.stages.options import Options
from llmsim.program.stages.shares import DTYPE_BYTES
from llmsim.program.what_if import WhatIf
from llmsim.scenario import Scenario

# Megatron-LM, distributed_data_parallel_config.py: max(40M, 1M × data-parallel size) parameters a bucket.
_BUCKET, _BUCKET_PER_RANK = 40e6, 1e6

# Generations of FlashAttention; a GPU without a kernel of one runs the one before. Plain `flash` is the newest.
_FLASH = {"flash1": 1, "flash2": 2, "flash3": 3}
_NEWEST_FLASH = 3


def shard_of(scenario: Scenario) -> Shard:
    """One rank's share of a layer."""
    training, resolved = scenario.training, scenario.resolve()
    layout = resolved.layout
    return Shard(
        micro_batch=training.micro_batch,
        seq_len=training.seq_len,
        tp=layout.tp,
        cp=layout.cp,
        ep=layout.ep,
        expert_tp=layout.etp,
        cp_kind=scenario.parallelism.cp_kind,
        dispatch=scenario.parallelism.dispatch,
        dispatch_fp8=scenario.parallelism.dispatch_dtype == "fp8",
        expert_kernels=training.expert_kernels,
        host_experts=(training.host.experts, training.host.experts_backward),
        imbalance=scenario.parallelism.expert_imbalance,
        sequence_parallel=scenario.parallelism.sequence_parallel and layout.tp > 1,
        precision=training.precision,
        attention="unfused" if training.attention == "unfused" else "flash",
        flash_version=_FLASH.get(training.attention, _NEWEST_FLASH),
        fusions=_fusions(training.fused),
        dropout=resolved.architecture.dropout,
        recompute=training.recompute.mode,
        modules=frozenset(training.recompute.modules),
        activation_input=training.activation_input,
        attention_output=training.attention_output,
        tp_overlap=training.overlap.tp,
        async_tp_grad=training.overlap.tp_grad,
        regather=scenario.parallelism.regather,
        grad_dtype=training.grad_dtype,
        loss_chunks=training.loss_chunks,
        accumulate=_accumulates(scenario),
    )


def options_of(scenario: Scenario, what_if: WhatIf) -> Options:
    """How a rank runs an iteration."""
    training, parallelism, resolved = scenario.training, scenario.parallelism, scenario.resolve()
    shard, layout = shard_of(scenario), resolved.layout
    boundary = shard.tokens * resolved.architecture.hidden * shard.element
    whole = not parallelism.scatter_gather and not shard.split_sequence
    param_bytes = 4 if training.precision in ("fp32", "tf32") else 2
    loads = scenario.data.storage is not None and what_if.loading
    return Options(
        boundary_bytes=boundary if whole else boundary / layout.tp,
        gather_boundary=0.0 if whole or shard.split_sequence or layout.tp == 1 else boundary,
        grad_bytes=DTYPE_BYTES[training.grad_dtype],
        param_bytes=param_bytes,
        sharded_optimizer=parallelism.zero >= 1,
        scatter_gradients=parallelism.zero >= 1 and training.grad_reduction != "all_reduce",
        overlap_reduce=training.overlap.grad_reduce,
        overlap_gather=training.overlap.param_gather,
        overlap_pipeline=training.overlap.pipeline,
        accumulate_locally=_accumulates(scenario),
        bucket=training.bucket or max(_BUCKET, _BUCKET_PER_RANK * layout.dp * layout.cp),
        message=training.bucket,
        optimizer=training.optimizer,
        fused_optimizer="optimizer" in shard.fusions,
        unscale=training.precision == "fp16",
        # Only from the second iteration on is the loader as far ahead as it gets.
        iterations=max(scenario.simulation.iterations, 2 if loads else 1),
        sharding=_sharding(scenario, param_bytes),
        offloading=_offloading(scenario),
        waiting=what_if.waiting,
    )


def _accumulates(scenario: Scenario) -> bool:
    """Whether weight gradients are added into a buffer over micro-batches, not reduced at once."""
    return scenario.training.accumulate_locally and scenario.parallelism.zero != 2


def _offloading(scenario: Scenario) -> Offloading | None:
    asked = scenario.training.offload
    if asked.optimizer == asked.activations == asked.parameters == "none":
        return None
    link = "c2c" if scenario.resolve().topology.gpu.c2c_bandwidth else "pcie"
    return Offloading(asked.optimizer, asked.activations, asked.parameters, link)


def _fusions(fused: bool | tuple[str, ...]) -> frozenset[str]:
    if isinstance(fused, bool):
        return ALL_FUSIONS if fused else NO_FUSIONS
    return frozenset(fused)


def _sharding(scenario: Scenario, param_bytes: int) -> Sharding | None:
    layout = scenario.resolve().layout
    if scenario.parallelism.zero < 3:
        return None
    hybrid = layout.shard < layout.dp * layout.cp
    return Sharding(
        group="shard" if hybrid else "dp",
        expert_group="eshard" if hybrid else "edp",
        ranks=layout.shard,
        expert_ranks=layout.expert_shard,
        replicas=layout.degree("replica"),
        expert_replicas=layout.degree("ereplica"),
        param_bytes=param_bytes,
        grad_bytes=DTYPE_BYTES[scenario.training.grad_dtype],
        reshard=scenario.parallelism.reshard,
        prefetch=scenario.training.overlap.param_gather,
        awaited=not scenario.training.overlap.grad_reduce,
        flattened="flat_gradients" not in _fusions(scenario.training.fused),
    )
