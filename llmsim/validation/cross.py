"""Leave one source out.

Each source is predicted once as shipped and once with one factor on all times, fitted to the other sources of its GPU
generation. Where the factor helps, the sources share a systematic error; where it does not, they differ by mechanism.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

NOTE = (
    "Kernels are fitted to kernel times and collectives to nccl-tests sweeps; traits of frameworks come from "
    "their code. No constant is fitted to the times of these runs, except two kernel constants that no kernel "
    "table determines (marked in kernels.yaml: Ampere's share of HBM bandwidth, unaligned batched products). "
    "Below, each source once more with one factor on all times, fitted to the other sources of its GPU generation."
)


def cross_validation(frame: "pd.DataFrame | None") -> dict[str, Any]:
    """{note, sources: [{source, n, median, bias, factor}]}: errors of each source under the others' median ratio.

    A source whose GPU generation no other source covers keeps the factor 1.
    """
    if frame is None:
        return {"note": NOTE, "sources": []}
    done = frame[frame["error"].notna()].copy()
    done["generation"] = done["gpu"].str.extract(r"([A-Z]+\d)", expand=False).fillna(done["gpu"])
    done["group"] = done["source"].str.replace(r"_\d\d\.\d\d.*$", "", regex=True)
    sources = []
    for name, part in done.groupby("group", sort=False):
        errors, factors = [], []
        for generation, rows in part.groupby("generation"):
            others = done[(done["group"] != name) & (done["generation"] == generation)]
            # Each source counts once, however many rows it has.
            ratio = (1.0 + others.groupby("group")["error"].median()).median() if len(others) else 1.0
            factors.append(float(1.0 / ratio))
            errors += ((1.0 + rows["error"]) / ratio - 1.0).tolist()
        ordered = sorted(abs(e) for e in errors)
        bias = sorted(errors)
        middle = len(errors) // 2
        sources.append(
            {
                "source": name,
                "n": len(errors),
                "median": ordered[middle],
                "bias": bias[middle],
                "unfitted_median": float(part["error"].abs().median()),
                "factor": sum(factors) / len(factors),
            }
        )
    return {"note": NOTE, "sources": sources}
