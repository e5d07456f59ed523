"""Errors of the kernel cost model against published kernel times.

    python benchmarks/kernel_accuracy.py [FILE.csv] [--worst N] [--cross]

--cross fits the math rates, launch and bandwidth to some GPUs or sources and tests them on the others.
"""

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median

from llmsim.catalogue.kernel_constants import kernel_constants
from llmsim.evidence.measured.kernel_fit import fit_kernels
from llmsim.evidence.measured.kernels import MeasuredKernel, measured_kernels

HEADER = "{:52s}  rows   med %   p90 %   max %  bias %"


def error(row: MeasuredKernel) -> float:
    """Relative error of the predicted time; positive = predicted slower than measured."""
    return row.predicted() / row.seconds - 1.0


def line(label: str, errors: list[float]) -> str:
    size = sorted(abs(e) for e in errors)
    p90 = size[min(len(size) - 1, int(0.9 * len(size)))]
    return (
        f"{label:52s} {len(errors):5d} {100 * median(size):7.1f} {100 * p90:7.1f} {100 * size[-1]:7.1f} "
        f"{100 * median(errors):+7.1f}"
    )


def cross(rows: list[MeasuredKernel]) -> None:
    """Errors on what the fit has not seen: another GPU, another source, another architecture's constants."""
    gemm = [r for r in rows if r.kind == "gemm" and r.precision == "bf16"]
    print(HEADER.format("bf16 GEMM: fitted to -> tested on"))
    for train, test in (
        (("h100-sxm", "trtllm"), ("h200", "trtllm")),
        (("h200", "trtllm"), ("h100-sxm", "trtllm")),
        (("h100-sxm", "trtllm"), ("h100-sxm", "vllm")),
        (("h100-sxm", "vllm"), ("h100-sxm", "trtllm")),
    ):
        seen = [r for r in gemm if (r.gpu.name, r.framework) == train]
        unseen = [r for r in gemm if (r.gpu.name, r.framework) == test]
        constants, _ = fit_kernels(seen, seen[0].gpu.architecture)
        label = f"{' '.join(train)} -> {' '.join(test)}"
        print(line(label, [r.predicted(constants) / r.seconds - 1.0 for r in unseen]))
    for donor, name in (("hopper", "a100-80"), ("hopper", "b200"), ("ampere", "h100-sxm"), ("ampere", "b200")):
        unseen = [r for r in gemm if r.gpu.name == name]
        own = kernel_constants(unseen[0].gpu.kernels)
        other = kernel_constants(donor)
        # Sustained power is a fact of the chip: carried over as the same share of peak at its own TDP.
        peak = {"hopper": 989.4e12, "ampere": 312e12}[donor]
        share = {"bf16": other.gemm.power["bf16"] / peak * unseen[0].gpu.peak("bf16")}
        lent = replace(other.gemm, power=share, tdp=own.gemm.tdp, tiles=own.gemm.tiles)
        label = f"{donor} constants as shares of peak -> {name}"
        print(line(label, [r.predicted(replace(other, gemm=lent)) / r.seconds - 1.0 for r in unseen]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="another table of the same columns")
    parser.add_argument("--worst", type=int, default=0, help="also print the N worst rows of each group")
    parser.add_argument("--cross", action="store_true", help="also fit to some sources and test on the others")
    options = parser.parse_args()
    rows = measured_kernels(options.file)
    groups: dict[tuple[str, ...], list[tuple[float, MeasuredKernel]]] = defaultdict(list)
    for row in rows:
        entry = (error(row), row)
        groups[(row.kind, row.gpu.name, row.precision, row.framework)].append(entry)
        groups[(f"all {row.kind.split('_')[0]}",)].append(entry)
    print(HEADER.format("kind gpu precision source"))
    for key in sorted(groups):
        entries = groups[key]
        print(line(" ".join(key), [e for e, _ in entries]))
        for e, row in sorted(entries, key=lambda x: -abs(x[0]))[: options.worst if len(key) > 1 else 0]:
            print(f"    {100 * e:+6.1f} %  {row.shape}  {row.seconds * 1e6:.1f} us")
    if options.cross:
        cross(rows)


if __name__ == "__main__":
    main()
