"""Kernel constants from a table of matrix products: CSV with m, n, k and a time or a rate."""

from collections.abc import Mapping
from pathlib import Path

from llmsim.catalogue.calibration import KERNELS
from llmsim.catalogue.gpus import Gpu, gpu
from llmsim.catalogue.kernel_constants import kernel_constants
from llmsim.cost.gemm import gemm_time
from llmsim.cost.kernels import scaled
from llmsim.errors import CatalogueError
from llmsim.evidence.calibration.estimate import estimate
from llmsim.evidence.calibration.result import Calibration, constant, order
from llmsim.files import read_rows
from llmsim.model.work import Gemm

_UNITS = {"time_s": 1.0, "time_ms": 1e-3, "time_us": 1e-6}
_DTYPES = {
    "float32": "fp32", "tf32": "tf32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "fp8": "fp8",
    "fp8_e4m3": "fp8", "float8_e4m3fn": "fp8", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16",
}  # fmt: skip


def calibrate_kernels(path: str | Path, gpu_name: str) -> Calibration:
    """Fit issue and power rates, launch gap and HBM share of one GPU.

    Columns: m, n, k; one of time_s, time_ms, time_us, tflops; dtype (default bf16) and batch (default 1) if wanted.
    Raises `CatalogueError` with the line and column that cannot be read.
    """
    device = gpu(gpu_name)
    rows = read_products(path, device)
    base = kernel_constants(device.kernels)

    def predict(factors: Mapping[str, float]) -> list[float]:
        constants = scaled(base, dict(factors))
        times = (gemm_time(work, device, constants) for work, _ in rows)
        return [time.seconds + time.launch for time in times]

    found, before, after = estimate(predict, [seconds for _, seconds in rows], KERNELS)
    fitted = [constant(("kernels", device.kernels, e.name), e) for e in found]
    return Calibration(str(path), f"matrix products on {device.label}", order(fitted), before, after)


def read_products(path: str | Path, device: Gpu) -> list[tuple[Gemm, float]]:
    """(product, seconds) of each row of the table."""
    columns, rows = read_rows(path, CatalogueError, "a table of matrix products in CSV")
    missing = [name for name in ("m", "n", "k") if name not in columns]
    if missing or not any(name in columns for name in (*_UNITS, "tflops")):
        wanted = missing[0] if missing else f"{', '.join(_UNITS)} or tflops"
        raise CatalogueError(f"{path}: column {wanted} is missing; the table has {', '.join(columns)[:200] or 'none'}")
    if not rows:
        raise CatalogueError(f"{path}: the table has no row; expected one for each matrix product")
    return [_product(row, f"{path}:{line}", device) for line, row in rows]


def _product(row: Mapping[str, str], place: str, device: Gpu) -> tuple[Gemm, float]:
    m, n, k, batch = (int(_number(row, key, place)) for key in ("m", "n", "k", "batch"))
    dtype = (row.get("dtype") or "bf16").strip().lower().removeprefix("torch.")
    if dtype not in _DTYPES:
        raise CatalogueError(f"{place}: dtype {dtype!r} is unknown; expected one of {', '.join(_DTYPES)}")
    device.peak(_DTYPES[dtype])  # complains of what this GPU does not have
    work = Gemm(m, n, k, batch, _DTYPES[dtype])
    unit = next((name for name in _UNITS if row.get(name)), None)
    seconds = _number(row, unit, place) * _UNITS[unit] if unit else work.flops / (_number(row, "tflops", place) * 1e12)
    return work, seconds


def _number(row: Mapping[str, str], key: str, place: str) -> float:
    text = row.get(key) or ("1" if key == "batch" else "")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e18:
        raise CatalogueError(f"{place}: {key} {text!r} is not a number above 0")
    return value
