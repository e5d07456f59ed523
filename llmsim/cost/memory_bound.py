"""Kernels whose time is their traffic: norms, activations, dropout, softmax, residuals, embeddings, the optimizer."""

from math import ceil

from llmsim.catalogue.gpus import Gpu
from llmsim.catalogue.kernel_constants import KernelConstants
from llmsim.cost.kernel_time import KernelTime
from llmsim.model.work import MemoryBound


def memory_bound_time(work: MemoryBound, gpu: Gpu, constants: KernelConstants) -> KernelTime:
    """Bytes over achieved HBM bandwidth; what still lies in L2 from the kernel before is read faster.

    A kernel that moves less than the L2's share finds everything there, one that moves twice as much nothing.
    """
    memory = constants.memory
    bandwidth = memory.elementwise * gpu.memory_bandwidth
    kernels = max(1, work.kernels)
    each = work.bytes / kernels
    kept = memory.l2_share * gpu.l2_bytes
    # Between one and two shares a streaming kernel evicts what it is about to read.
    resident = min(each, max(0.0, 2.0 * kept - each))
    seconds = kernels * (each - resident + resident / memory.l2_rate) / bandwidth
    sm = min(1.0, ceil(each / memory.block_bytes) / gpu.sms)
    hbm = min(work.bytes / seconds, bandwidth) if seconds else 0.0
    return KernelTime(seconds, kernels * constants.launch, work.flops, work.bytes, sm, hbm)
