"""Errors of the kernel cost model against published kernel times.

    python benchmarks/kernel_accuracy.py [FILE.csv] [--worst N]
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import median

from llmsim.cost.measured import MeasuredKernel, measured_kernels


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="another table of the same columns")
    parser.add_argument("--worst", type=int, default=0, help="also print the N worst rows of each group")
    options = parser.parse_args()
    groups: dict[tuple[str, ...], list[tuple[float, MeasuredKernel]]] = defaultdict(list)
    for row in measured_kernels(options.file):
        entry = (error(row), row)
        groups[(row.kind, row.gpu.name, row.precision, row.framework)].append(entry)
        groups[(f"all {row.kind.split('_')[0]}",)].append(entry)
    print(f"{'kind gpu precision source':52s} {'rows':>5s} {'med %':>7s} {'p90 %':>7s} {'max %':>7s} {'bias %':>7s}")
    for key in sorted(groups):
        entries = groups[key]
        print(line(" ".join(key), [e for e, _ in entries]))
        for e, row in sorted(entries, key=lambda x: -abs(x[0]))[: options.worst if len(key) > 1 else 0]:
            print(f"    {100 * e:+6.1f} %  {row.shape}  {row.seconds * 1e6:.1f} us")


if __name__ == "__main__":
    main()
