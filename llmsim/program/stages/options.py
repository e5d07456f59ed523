"""How an iteration is run: what the program of every rank class agrees on."""

from dataclasses import dataclass

from llmsim.program.stages.fsdp import Sharding
from llmsim.program.stages.offload import Offloading


@dataclass(frozen=True, slots=True)
class Options:
    """How the iteration is run: sizes in bytes, and what overlaps what."""

    boundary_bytes: float  # activation that one rank passes to the next stage
    gather_boundary: float  # bytes that the receiving tp group gathers again; 0: it needs nothing
    grad_bytes: int
    param_bytes: int
    sharded_optimizer: bool
    scatter_gradients: bool  # gradients are reduce-scattered, not all-reduced
    overlap_reduce: bool
    overlap_gather: bool
    overlap_pipeline: bool
    accumulate_locally: bool
    bucket: float  # parameters
    message: float | None  # most parameters of one reduction; None: all of a bucket
    optimizer: str
    fused_optimizer: bool
    unscale: bool  # fp16 gradients are scaled against underflow
    iterations: int
    sharding: Sharding | None = None  # parameters are sharded too (ZeRO-3, FSDP)
    offloading: Offloading | None = None
    waiting: bool = True  # False: a what-if in which stages do not wait for one another
