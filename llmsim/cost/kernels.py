"""Compute kernels in seconds: the work of one kernel on one GPU."""

from dataclasses import dataclass
from math import ceil

from llmsim.catalogue.gpus import Gpu
from llmsim.catalogue.kernel_constants import kernel_constants
from llmsim.model.work import Attention, Gemm, MemoryBound

ELEMENT = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class KernelTime:
    """What a kernel takes of a GPU when nothing else runs there."""

    seconds: float  # busy, launch gap not included
    launch: float  # gaps on the GPU before its kernels, s
    flops: float
    bytes: float  # HBM traffic
    sm: float  # share of the SMs it occupies, 0..1
    hbm: float  # bytes/s of HBM it draws


class KernelCosts:
    """Kernel times on one GPU; each distinct work is computed once."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.constants = kernel_constants(gpu.architecture)
        self._known: dict[Gemm | Attention | MemoryBound, KernelTime] = {}

    def time(self, work: Gemm | Attention | MemoryBound) -> KernelTime:
        """The time of one work. Raises `CatalogueError` for a precision that this GPU does not have."""
        known = self._known.get(work)
        if known is None:
            kernel = {Gemm: self._gemm, Attention: self._attention, MemoryBound: self._memory}[type(work)]
            known = self._known[work] = kernel(work)
        return known

    def _memory_seconds(self, size: float) -> float:
        return size / (self.constants["memory"]["efficiency"] * self.gpu.memory_bandwidth)

    def _result(self, compute: float, flops: float, size: float, sm: float, kernels: int = 1) -> KernelTime:
        seconds = max(compute, self._memory_seconds(size))
        return KernelTime(seconds, kernels * self.constants["launch"], flops, size, sm, size / seconds if seconds else 0.0)

    def _gemm(self, work: Gemm) -> KernelTime:
        c = self.constants["gemm"]
        rate = c["efficiency"][work.precision] * self.gpu.peak(work.precision) / self.gpu.sms
        best, sm = float("inf"), 1.0
        for tm, tn in c["tiles"]:
            tiles = ceil(work.m / tm) * ceil(work.n / tn) * work.batch
            seconds = ceil(tiles / self.gpu.sms) * 2.0 * tm * tn * (work.k + c["ramp"]) / rate
            if seconds < best:
                best, sm = seconds, min(1.0, tiles / self.gpu.sms)
        e = ELEMENT[work.precision]
        out = 8 if work.accumulate else max(2, e)
        size = work.batch * (e * (work.m * work.k + work.k * work.n) + out * work.m * work.n)
        return self._result(best, work.flops, float(size), sm)

    def _attention(self, work: Attention) -> KernelTime:
        c = self.constants["attention"]
        efficiency = c["efficiency"][work.version] * (c["backward"] if work.backward else 1.0)
        tiles = work.batch * work.heads * ceil(work.q_len / 128)
        sm = min(1.0, tiles / self.gpu.sms)
        compute = work.flops / (efficiency * sm * self.gpu.peak(work.precision))
        e = ELEMENT[work.precision]
        q = work.batch * work.heads * work.q_len * (work.head_dim + work.v_head_dim)
        kv = work.batch * work.kv_heads * work.kv_len * (work.head_dim + work.v_head_dim)
        return self._result(compute, work.flops, float(e * (q + kv) * (2.5 if work.backward else 1.0)), sm)

    def _memory(self, work: MemoryBound) -> KernelTime:
        return self._result(0.0, work.flops, work.bytes, 1.0, work.kernels)
