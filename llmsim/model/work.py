"""What a model asks of the hardware, free of any hardware: kernels and communications by shape.

The model layer lists `Step`s; the cost layer turns the work of each into seconds on a given GPU and group.
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "nvfp4"]


@dataclass(frozen=True, slots=True)
class Gemm:
    """`batch` independent products (m×k)·(k×n). FLOPs 2·batch·m·n·k."""

    m: int
    n: int
    k: int
    batch: int = 1
    precision: Precision = "bf16"
    accumulate: bool = False  # adds into an fp32 output (weight gradients of a fused accumulation)
    grouped: bool = False  # each product has operands of its own and few rows: the experts of a mixture

    @property
    def flops(self) -> float:
        return 2.0 * self.batch * self.m * self.n * self.k


@dataclass(frozen=True, slots=True)
class Attention:
    """A fused (flash) attention core, forward or backward, of one micro-batch on one rank.

    batch sequences, `heads` query heads and `kv_heads` key/value heads on this rank, `q_len`×`kv_len` positions.
    FLOPs of the forward: 4·batch·heads·q_len·kv_len·(head_dim + v_head_dim)/2, halved when causal; backward 2.5×.
    """

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    v_head_dim: int
    causal: bool = True
    backward: bool = False
    precision: Precision = "bf16"
    window: int | None = None  # sliding window: keys each query may see
    version: int = 2  # FlashAttention generation, chosen by the framework and GPU

    @property
    def flops(self) -> float:
        q, k = self.q_len, self.kv_len
        pairs = q * k
        if self.causal and q == k:
            w = min(self.window or k, k)
            # Causal pairs are counted as half of the square, as published FLOP counts do.
            pairs = q * k / 2 if w >= k else q * w - w * w / 2
        elif self.causal:
            pairs = pairs / 2
        forward = 2.0 * self.batch * self.heads * pairs * (self.head_dim + self.v_head_dim)
        return forward * 2.5 if self.backward else forward


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """A kernel whose time is its traffic: norm, activation, dropout, softmax, residual, embedding, optimizer."""

    bytes: float  # read plus written
    kernels: int = 1  # launches (an unfused chain of n elementwise kernels is n)
    flops: float = 0.0


@dataclass(frozen=True, slots=True)
class Once:
    """Tokens with `copies` for experts anywhere, on at most `nodes` nodes (0: any), that cross to each node once."""

    copies: int
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Communication:
    """A collective of this rank's group, `size` in bytes as nccl-tests counts it.

    all_reduce: the buffer; all_gather: the total output; reduce_scatter: the total input; all_to_all: what one rank
    sends in total (own block included); broadcast and send_recv: the message.
    """

    operation: Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send_recv"]
    group: str  # tp | cp | ep | dp | …
    size: float
    once: "Once | None" = None  # all_to_all: how tokens go that reach each node only once


@dataclass(frozen=True, slots=True)
class HostWait:
    """A GPU that waits for its host, which has waited for it: nothing is queued while the host launches."""

    seconds: float


@dataclass(frozen=True, slots=True)
class HostCopy:
    """`size` bytes between a GPU and memory outside it. way: to_cpu, from_cpu, to_nvme or from_nvme.

    share: of the bandwidth of the way that copies reach.
    """

    way: str
    size: float
    share: float = 1.0

    @property
    def bytes(self) -> float:
        return self.size


@dataclass(frozen=True, slots=True)
class HostUpdate:
    """An optimizer step on a CPU: bytes that it reads and writes in memory, and on disks meanwhile."""

    memory: float
    read: float = 0.0
    written: float = 0.0

    @property
    def bytes(self) -> float:
        return self.memory + self.read + self.written


@dataclass(frozen=True, slots=True)
class Step:
    """One op of a layer, in program order.

    Streams are FIFO. A step starts when the step before it on its stream is done and every step of `after` (indices
    into the same list) is done; `after=None` means the step listed just before it, so that a plain list is serial.
    """

    name: str
    work: Gemm | Attention | MemoryBound | Communication | HostWait | HostCopy | HostUpdate
    stream: str = "compute"
    phase: str = "forward"  # forward | backward | weight | recompute | update
    after: tuple[int, ...] | None = None
