"""Matrix products: tiles and waves over SMs, the K ramp, the power limit and HBM traffic.

The quantisation of tiles and waves follows NVIDIA's Matrix Multiplication Background User's Guide (section 3).
"""

from math import ceil, inf, sqrt

from llmsim.catalogue.gpus import Gpu
from llmsim.catalogue.kernel_constants import GemmConstants, KernelConstants, sustained
from llmsim.cost.kernel_time import ELEMENT_BYTES, KernelTime, soft_maximum
from llmsim.model.work import Gemm

_Choice = tuple[float, float, tuple[int, int]]  # seconds, share of the SMs, tile


def gemm_time(work: Gemm, gpu: Gpu, constants: KernelConstants) -> KernelTime:
    """Time of `work`: the soft maximum of three limits that hold at once.

    compute: waves of tiles at the boost clock, the best of the library's tiles and split-K choices;
    power: executed FLOPs over what the power limit sustains (it binds large products, which fill every wave);
    memory: operands and result over HBM.
    Grouped products are too short to hide the loads of their weights: their memory time adds to the rest. So does most
    of the traffic of an accumulation, which happens in the epilogue of each tile.
    Raises `CatalogueError` for a precision that this GPU does not have.
    """
    gemm = constants.gemm
    rate = gemm.issue.get(work.precision, 1.0) * gpu.peak(work.precision)
    limit = sustained(gemm, work.precision, gpu.tdp_w)
    # The ramp is a latency: what it costs in K steps shrinks with the rate of the steps.
    ramp = gemm.ramp_bytes / ELEMENT_BYTES[work.precision]
    if not _aligned(work, gemm):
        slow = gemm.unaligned * rate if work.batch == 1 else gemm.unaligned_batched * gpu.peak("fp32")
        slow = min(slow, rate)
        ramp, limit, rate = ramp * slow / rate, limit * slow / rate, slow
    compute, sm, tile = _best_tile(work, gpu, gemm, rate, ramp)
    bandwidth = constants.memory.hbm * gpu.memory_bandwidth
    memory = _least_bytes(work) / bandwidth
    if work.grouped:
        seconds = soft_maximum((compute, work.flops / limit), constants.blend) + memory
    else:
        seconds = soft_maximum((compute, work.flops / limit, memory), constants.blend)
        if work.accumulate:
            seconds += gemm.accumulate_exposed * _extra_bytes(work) / bandwidth
    size = _hbm_bytes(work, gpu, tile)
    hbm = min(size / seconds, bandwidth) if seconds else 0.0
    return KernelTime(seconds, constants.launch, work.flops, size, sm, hbm)


def _aligned(work: Gemm, gemm: GemmConstants) -> bool:
    """Rows of both operands and of the result start on vector-load boundaries; experts' token counts are never rows."""
    step = gemm.alignment / ELEMENT_BYTES[work.precision]
    return (work.grouped or work.k % step == 0) and work.n % step == 0


def _best_tile(work: Gemm, gpu: Gpu, gemm: GemmConstants, rate: float, ramp: float) -> _Choice:
    """The fastest of all tiles and split-K choices; a tile computes its K steps and a ramp."""
    best, share, chosen = inf, 1.0, gemm.tiles[0]
    largest = max(_reuse(tile) for tile in gemm.tiles)
    partial = 4.0 * work.batch * work.m * work.n / (gemm.split_rate * gpu.memory_bandwidth)
    for tile in gemm.tiles:
        rows, columns = tile
        outputs = ceil(work.m / rows) * ceil(work.n / columns) * work.batch
        # Small tiles load each operand more often than shared memory can bear: t/(t+t0), 1 for the largest tile.
        reuse = _reuse(tile)
        slowdown = (reuse + gemm.tile_half) / reuse * largest / (largest + gemm.tile_half)
        step = 2.0 * rows * columns * gpu.sms * slowdown / rate
        for split in gemm.splits:
            depth = ceil(work.k / split / gemm.k_step) * gemm.k_step
            blocks = outputs * split
            seconds = ceil(blocks / gpu.sms) * step * (depth + ramp)
            if split > 1:
                seconds += gemm.split_latency + (2 * split + 1) * partial
            if seconds < best:
                best, share, chosen = seconds, min(1.0, blocks / gpu.sms), tile
    return best, share, chosen


def _reuse(tile: tuple[int, int]) -> float:
    """FLOPs per element loaded into shared memory, halved."""
    return tile[0] * tile[1] / (tile[0] + tile[1])


def _least_bytes(work: Gemm) -> float:
    """Bytes with every operand read once and the result written once (read too when it accumulates in fp32)."""
    element = ELEMENT_BYTES[work.precision]
    result = work.batch * work.m * work.n * max(2, element)
    operands = work.batch * element * work.k * (work.m + work.n)
    return float(operands + result) + (_extra_bytes(work) if work.accumulate else 0.0)


def _extra_bytes(work: Gemm) -> float:
    """What an fp32 accumulation reads and writes beyond a result of 16 bits."""
    return float(work.batch * work.m * work.n * (8 - max(2, ELEMENT_BYTES[work.precision])))


def _hbm_bytes(work: Gemm, gpu: Gpu, tile: tuple[int, int]) -> float:
    """HBM traffic: operands that L2 cannot hold are read again by each square-ish wave of tiles."""
    least = _least_bytes(work)
    element = ELEMENT_BYTES[work.precision]
    if element * work.k * (work.m + work.n) <= gpu.l2_bytes:
        return least
    waves = ceil(work.m / tile[0]) * ceil(work.n / tile[1]) / gpu.sms
    again = waves * 2.0 * sqrt(gpu.sms * tile[0] * tile[1]) * work.k * element * work.batch
    return max(least, least - work.batch * element * work.k * (work.m + work.n) + again)
