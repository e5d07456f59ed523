"""Fused (flash) attention: tensor-core and softmax time of query-key pairs, tiles over SMs, HBM traffic.

Algorithm: FlashAttention-2 (arXiv 2307.08691), FlashAttention-3 (arXiv 2407.08608); no s² traffic reaches HBM.
"""

from math import ceil

from llmsim.catalogue.gpus import Gpu
from llmsim.catalogue.kernel_constants import AttentionKernel, KernelConstants
from llmsim.cost.kernel_time import ELEMENT_BYTES, KernelTime, soft_maximum
from llmsim.model.work import Attention


def attention_time(work: Attention, gpu: Gpu, constants: KernelConstants, family: str | None = None) -> KernelTime:
    """Time of a forward or backward core with the kernel `family` (default: flash of `work.version`).

    Each thread block owns a tile of queries (of keys in the backward) and visits the keys that its rows may see.
    Raises `CatalogueError` for a precision that this GPU does not have.
    """
    shared = constants.attention
    kernel = shared.family(family or f"flash{work.version}")
    owned, visited = (work.kv_len, work.q_len) if work.backward else (work.q_len, work.kv_len)
    tile = shared.backward_tile if work.backward else shared.query_tile
    tiles = work.batch * work.heads * ceil(owned / tile)
    overhead = kernel.overhead * (kernel.backward_overhead if work.backward else 1.0)
    # Half of a tile on a mask's edge is computed for nothing; a causal window has two edges.
    edges = (0.5 if work.causal else 0.0) + (0.5 if work.causal and work.window else 0.0)
    mean = min(_pairs(work) / owned + edges * tile, visited) + overhead
    longest = min(visited, (work.window or visited) + tile) + overhead
    length = max(tiles * mean / gpu.sms + shared.tail * longest, longest)
    compute = tile * length * _pair_seconds(work, gpu, constants, kernel)

    bandwidth = constants.memory.hbm * gpu.memory_bandwidth
    size = _operand_bytes(work)
    seconds = soft_maximum((compute, size / bandwidth), constants.blend)
    kernels = 1
    if work.backward:
        around = shared.backward_bytes * work.batch * work.heads * work.q_len * work.head_dim
        seconds, size, kernels = seconds + around / bandwidth, size + around, shared.backward_kernels
    sm = min(1.0, tiles / gpu.sms)
    return KernelTime(seconds, kernels * constants.launch, work.flops, size, sm, min(size / seconds, bandwidth))


def _pairs(work: Attention) -> float:
    """Query-key pairs that the mask lets through, of one head of one sequence."""
    products = 2.0 * work.batch * work.heads * (work.head_dim + work.v_head_dim)
    return work.flops / (2.5 if work.backward else 1.0) / products


def _pair_seconds(work: Attention, gpu: Gpu, constants: KernelConstants, kernel: AttentionKernel) -> float:
    """Time that one SM takes per pair: two products (five in the backward) with the softmax partly behind them."""
    shared = constants.attention
    width = sum(ceil(d / shared.head_step) * shared.head_step for d in (work.head_dim, work.v_head_dim))
    math = 2.0 * width * gpu.sms / (kernel.math * gpu.peak(work.precision))
    pair = soft_maximum((math, kernel.softmax / gpu.clock_hz), shared.overlap)
    return pair * 2.5 / kernel.backward if work.backward else pair


def _operand_bytes(work: Attention) -> float:
    """Q, K, V and O once in the forward; they, their gradients and dO in the backward."""
    width = work.head_dim + work.v_head_dim
    elements = work.batch * width * (work.heads * work.q_len + work.kv_heads * work.kv_len)
    return float(ELEMENT_BYTES[work.precision] * elements * (2 if work.backward else 1))
