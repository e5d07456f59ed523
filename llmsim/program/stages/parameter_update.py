"""What ends an iteration on one rank: gradients reduced, their norm, the update of parameters on the GPU or a CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from llmsim.model.work import Communication, Step
from llmsim.program.stages.gradient_reduction import gather_steps, in_messages, reduction_steps
from llmsim.program.stages.offload import cpu_update
from llmsim.program.stages.optimizer import newton_schulz, optimizer_steps
from llmsim.program.stages.options import Options
from llmsim.program.stages.shares import Shares

_TENSORS = 12  # parameter tensors of one part (a layer), about


@dataclass(frozen=True, slots=True)
class Closing:
    """degrees: ranks in each kind of group, and `embedding_parameters`, the embedding on this rank."""

    options: Options
    degrees: dict[str, float]

    @property
    def reducing(self) -> bool:
        """Whether other ranks hold the same parameters."""
        return self.degrees["dp"] * self.degrees["edp"] > 1

    @property
    def on_cpu(self) -> bool:
        """Whether the optimizer works outside the GPU."""
        return self.options.offloading is not None and self.options.offloading.optimizer != "none"

    def updated(self, share: Shares) -> float:
        """Parameters of the share that this rank's optimizer updates."""
        if self.options.sharding is not None:
            return self.options.sharding.shard(share)
        if not self.options.sharded_optimizer:
            return share.total
        return share.dense / self.degrees["shard"] + share.expert / self.degrees["eshard"]

    @property
    def _owners(self) -> tuple[int, int]:
        """Ranks that share the update of dense parameters, and of experts."""
        sharding = self.options.sharding
        if sharding is not None:
            return sharding.ranks, sharding.expert_ranks
        if not self.options.sharded_optimizer:
            return 1, 1
        return int(self.degrees["shard"]), int(self.degrees["eshard"])

    @property
    def hybrid(self) -> bool:
        """Whether optimizer states are sharded within groups of the data parallel ranks only (HSDP)."""
        return self.options.sharded_optimizer and self.degrees["shard"] < self.degrees["dp"]

    def gathers(self, share: Shares) -> list[Step]:
        """Of updated parameters."""
        groups = ("shard", "eshard") if self.hybrid else ("dp", "edp")
        return self._meeting(gather_steps(share, self.options.param_bytes, *groups))

    def reductions(self, share: Shares, parts: int) -> list[Step]:
        """Of the gradients of so many parts (layers)."""
        shard = (self.degrees["shard"], self.degrees["eshard"]) if self.hybrid else None
        steps = reduction_steps(share, self.options.grad_bytes, self.options.scatter_gradients, shard)
        most = self.options.message
        return self._meeting(in_messages(steps, most and most * self.options.grad_bytes, parts))

    def to_cpu(self, share: Shares) -> list[Step]:
        """The copy of reduced gradients to a CPU that updates."""
        size = self.updated(share)
        return [self.options.offloading.gradients(size, self.options.grad_bytes)] if self.on_cpu and size else []

    def tensors(self, parts: int) -> int:
        """Parameter tensors of so many parts."""
        return _TENSORS * parts

    def steps(self, stages: Sequence[Shares], parts: int, matrices: Mapping[tuple[int, int, bool], int]) -> list[Step]:
        """After the last backward pass, on the compute stream. stages: parameters of each; parts: of all together.

        matrices: as `newton_schulz` takes them.
        """
        options, total = self.options, sum(stages, Shares(0.0, 0.0))
        steps: list[Step] = []
        if not options.overlap_reduce and options.accumulate_locally and options.sharding is None:
            for share in stages:
                steps += [*self.reductions(share, ceil(parts / len(stages))), *self.to_cpu(share)]
        if self.degrees["embedding"] > 1:
            size = self.degrees["embedding_parameters"] * options.grad_bytes
            steps.append(Step("embedding gradient", Communication("all_reduce", "embedding", size), "dp", "backward"))
        norm, *update = optimizer_steps(
            self.updated(total),
            options.optimizer,
            options.grad_bytes,
            options.param_bytes,
            options.fused_optimizer,
            self.tensors(parts),
            options.unscale,
        )
        steps.append(norm)
        together = Step("gradient norm all-reduce", Communication("all_reduce", "norm", 4.0), "dp", "update")
        steps += self._meeting([together])
        if self.on_cpu:
            return [*steps, update[-1]]  # the gradients on the GPU are cleared; the rest is the CPU's
        if options.optimizer == "muon":
            steps += newton_schulz(matrices, *self._owners)
        steps += update
        if options.sharded_optimizer and not options.overlap_gather and options.sharding is None:
            steps += self.gathers(total)
        return steps

    def cpu_buckets(self, stages: Sequence[Shares], parts: int) -> list[tuple[Step, Step | None]]:
        """The update on the CPU, bucket by bucket (as many as parts), and the copy of what it updated to the GPU."""
        options = self.options
        size = self.updated(sum(stages, Shares(0.0, 0.0))) / max(parts, 1)
        if not self.on_cpu or not size:
            return []
        disks = options.offloading.optimizer == "nvme"
        update = cpu_update(options.optimizer, size, options.grad_bytes, options.param_bytes, disks)
        back = None
        if options.offloading.parameters == "none":
            back = options.offloading.back("parameters from CPU", size * options.param_bytes, "cpu", "update")
        return [(update, back)] * parts

    def last_gather(self, stages: Sequence[Shares]) -> list[Step]:
        """Of what a CPU has updated, where the next iteration does not gather it."""
        options = self.options
        if not self.on_cpu or not options.sharded_optimizer or options.overlap_gather or options.sharding is not None:
            return []
        return self.gathers(sum(stages, Shares(0.0, 0.0)))

    def _meeting(self, steps: Sequence[Step]) -> list[Step]:
        """Those whose groups have other members."""
        return [step for step in steps if self.degrees.get(step.work.group, 2) > 1]
