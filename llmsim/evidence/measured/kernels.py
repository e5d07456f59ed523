"""Published kernel times and what the cost model says of them.

Rows: `catalogue/measured/kernels.csv`, columns kind, gpu, op, dtype, shape_or_size, value, unit, source, note.
Inference benchmarks time more than the kernel (dynamic fp8 quantisation, the key-value cache): those parts are listed
as works of their own, so that the comparison is of like with like.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from llmsim.catalogue.gpus import Gpu, gpu
from llmsim.catalogue.kernel_constants import KernelConstants, harness_constants
from llmsim.cost.kernels import KernelCosts, KernelTraits, Work
from llmsim.errors import CatalogueError
from llmsim.model.work import Attention, Gemm, MemoryBound

_PRECISION = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "fp8_e4m3": "fp8", "half": "fp16"}
_FORM_FACTORS = {"nvidia", "amd", "sxm", "sxm2", "sxm3", "sxm4", "sxm5", "sxm6", "nvl72", "oam"}


@dataclass(frozen=True, slots=True)
class MeasuredKernel:
    """One published time: the works it consists of, and how they were run."""

    kind: str  # gemm | gemm_peak | attention_fwd | attention_bwd
    gpu: Gpu
    precision: str
    framework: str  # trtllm | vllm | … | flash2 | ml-engineering
    shape: str
    seconds: float
    works: tuple[Work, ...]
    family: str | None  # attention kernel family, None = by version
    extra: float  # seconds of the harness that are no kernel's
    source: str

    def predicted(self, constants: KernelConstants | None = None) -> float:
        """Seconds by the cost model, launches included."""
        costs = KernelCosts(self.gpu, KernelTraits(attention=self.family), constants)
        times = [costs.time(work) for work in self.works]
        return sum(t.seconds + t.launch for t in times) + self.extra


def measured_kernels(path: Path | None = None) -> list[MeasuredKernel]:
    """The published rows of GPUs that the catalogue knows; `path` names another file of the same columns."""
    file = path or resources.files("llmsim.catalogue").joinpath("measured/kernels.csv")
    with file.open(encoding="utf-8", newline="") as stream:
        return list(_read(csv.DictReader(stream)))


def _read(rows: Iterable[dict[str, str]]) -> Iterator[MeasuredKernel]:
    for row in rows:
        try:
            device = _device(row["gpu"])
        except CatalogueError:
            continue
        precision = _PRECISION.get(row["dtype"], row["dtype"])
        framework = _framework(row)
        if precision in device.peak_flops and row["kind"] in _READERS:
            yield _READERS[row["kind"]](row, device, precision, framework)


def _device(name: str) -> Gpu:
    """`H100-80GB-SXM`, `NVIDIA H200 SXM`, `A100-40GB-SXM` and the like."""
    parts = [p for p in name.lower().replace("-", " ").split() if p not in _FORM_FACTORS]
    for candidate in ("-".join(parts), parts[0]):
        try:
            return gpu(candidate)
        except CatalogueError:
            continue
    return gpu("-".join(parts))


def _framework(row: dict[str, str]) -> str:
    text = f"{row['op']} {row['note']} {row['source']}"
    known = ("trtllm", "vllm", "sglang", "ml-engineering", "flash1", "flash2", "flash3")
    return next((name for name in known if name in text), "")


def _dimensions(shape: str) -> dict[str, int]:
    return {key: int(value) for key, value in (part.split("=") for part in shape.split(";"))}


def _gemm(row: dict[str, str], device: Gpu, precision: str, framework: str) -> MeasuredKernel:
    d = _dimensions(row["shape_or_size"])
    works: list[Work] = [Gemm(d["m"], d["n"], d["k"], precision=precision)]
    extra = 0.0
    if precision == "fp8" and "quantisation" in row["note"]:
        harness = harness_constants()
        works.append(MemoryBound(harness["quantise_bytes"] * d["m"] * d["k"]))
        rows = d["m"] * harness["quantise_row"].get(framework, 0.0)
        extra = rows + harness["quantise_latency"].get(framework, 0.0)
    seconds = float(row["value"]) * 1e-3
    return _row(row, device, precision, framework, seconds, works, extra=extra)


def _gemm_peak(row: dict[str, str], device: Gpu, precision: str, framework: str) -> MeasuredKernel:
    m, n, k = (int(x) for x in row["shape_or_size"].split("x"))
    work = Gemm(m, n, k, precision=precision)
    return _row(row, device, precision, framework, work.flops / (float(row["value"]) * 1e12), [work])


def _attention(row: dict[str, str], device: Gpu, precision: str, framework: str) -> MeasuredKernel:
    d = _dimensions(row["shape_or_size"])
    batch, length, heads, kv, width = d["b"], d["s"], d["h"], d["kv"], d["d"]
    causal, backward = bool(d.get("causal", 1)), row["kind"] == "attention_bwd"
    core = Attention(batch, heads, kv, length, length, width, width, causal, backward, precision)
    works: list[Work] = [core]
    family = framework if framework.startswith("flash") else "prefill"
    if family == "prefill":
        harness = harness_constants()
        # vLLM and SGLang run FlashAttention 3 where there is one, over a paged cache all the same.
        if framework in ("vllm", "sglang") and device.architecture == "hopper":
            family = "flash3"
        passes = harness["cache_passes"].get(framework, 1)
        moved = passes * 2 * 2 * 2.0 * batch * length * kv * width
        works.append(MemoryBound(moved, kernels=harness["prefill_kernels"]))
    return _row(row, device, precision, framework, float(row["value"]) * 1e-3, works, family)


def _row(
    row: dict[str, str],
    device: Gpu,
    precision: str,
    framework: str,
    seconds: float,
    works: list[Work],
    family: str | None = None,
    extra: float = 0.0,
) -> MeasuredKernel:
    shape, source = row["shape_or_size"], row["source"]
    return MeasuredKernel(
        row["kind"], device, precision, framework, shape, seconds, tuple(works), family, extra, source
    )


_READERS = {"gemm": _gemm, "gemm_peak": _gemm_peak, "attention_fwd": _attention, "attention_bwd": _attention}
