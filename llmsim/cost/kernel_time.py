"""What a kernel takes of a GPU."""

from dataclasses import dataclass

ELEMENT_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "nvfp4": 0.5}


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Time and demands of one work when nothing else runs on its GPU."""

    seconds: float  # busy, launch gaps not included
    launch: float  # gaps on the GPU before its kernels, s
    flops: float
    bytes: float  # HBM traffic
    sm: float  # share of the SMs it occupies, 0..1
    hbm: float  # bytes/s of HBM it draws while it runs


def soft_maximum(times: tuple[float, ...], exponent: float) -> float:
    """(Σ tᵖ)^(1/p): the longest of limits that hold at once, a little longer where two are close."""
    longest = max(times)
    if longest <= 0.0:
        return 0.0
    return longest * sum((t / longest) ** exponent for t in times) ** (1.0 / exponent)
