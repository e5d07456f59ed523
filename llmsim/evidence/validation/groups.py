"""Accuracy of what a training run is made of: published kernel and collective times against the model's."""

from typing import Any

from llmsim.evidence.measured.collective_accuracy import accuracy_table, leave_one_source_out
from llmsim.evidence.measured.kernels import measured_kernels


def kernel_errors() -> list[dict[str, Any]]:
    """Rows by kind of kernel and GPU: n, median, p90, worst and bias as fractions of the measured time."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in measured_kernels():
        error = row.predicted() / row.seconds - 1.0
        kind = row.kind.split("_")[0]
        for key in ((kind, row.gpu.label), (kind, "all")):
            groups.setdefault(key, []).append(error)
    return [{"kind": kind, "gpu": gpu} | _figures(errors) for (kind, gpu), errors in sorted(groups.items())]


def collective_errors() -> list[dict[str, Any]]:
    """Rows by, value, n, median, p90, worst, bias: sizes, GPUs, operations (`llmsim.collectives.accuracy`)."""
    return accuracy_table()


def collective_transfer(workers: int) -> list[dict[str, Any]]:
    """The same by size and source, each source predicted by constants fitted to the other sources only."""
    return leave_one_source_out(workers=workers)


def _figures(errors: list[float]) -> dict[str, float]:
    import numpy as np

    absolute = np.abs(errors)
    return {
        "n": len(errors),
        "median": float(np.median(absolute)),
        "p90": float(np.quantile(absolute, 0.9)),
        "worst": float(absolute.max()),
        "bias": float(np.median(errors)),
    }
