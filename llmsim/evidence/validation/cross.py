"""Leave one source out: fit speeds to all other sources, and predict the one that was left out.

Two factors for each GPU generation, on computing and on exposed communication, are fitted to the other sources (each
counts alike, however many runs it has). A run's time answers to them by the shares of its breakdown. Where the fit
helps the source left out, sources share a systematic error; where it does not, they differ by mechanism.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from llmsim.evidence.calibration.estimate import estimate

if TYPE_CHECKING:
    import pandas as pd

NOTE = (
    "Kernels are fitted to kernel times and collectives to nccl-tests sweeps; traits of frameworks come from their "
    "code. Constants marked as fitted to training times (in kernels.yaml, collectives.yaml, frameworks.yaml) have one "
    "value for all runs of a GPU generation or of a framework. Below, each source as shipped, and with the speeds of "
    "computing and communication fitted to all other sources of its GPU generation."
)
_COMPUTING = ("share_compute", "share_optimizer", "share_bubble")
_COMMUNICATION = ("share_exposed_tp", "share_exposed_cp", "share_exposed_ep", "share_exposed_pp", "share_exposed_dp")


def cross_validation(frame: "pd.DataFrame | None") -> dict[str, Any]:
    """{note, sources: [{source, n, unfitted_median, median, bias, computing, communication}]}, factors on speeds.

    A source whose GPU generation no other source covers keeps the factors 1.
    """
    if frame is None:
        return {"note": NOTE, "sources": []}
    done = frame[frame["error"].notna()].copy()
    done["generation"] = done["gpu"].str.extract(r"([A-Z]+\d)", expand=False).fillna(done["gpu"])
    done["group"] = done["source"].str.replace(r"_\d\d\.\d\d.*$", "", regex=True)
    sources = []
    for name, part in done.groupby("group", sort=False):
        errors, speeds = [], []
        for generation, rows in part.groupby("generation"):
            others = done[(done["group"] != name) & (done["generation"] == generation)]
            found = _speeds(others) if len(others) else {"computing": 1.0, "communication": 1.0}
            speeds.append(found)
            errors += (_times(rows, found) / rows["measured"].to_numpy(float) - 1.0).tolist()
        sources.append(
            {
                "source": name,
                "n": len(errors),
                "unfitted_median": float(part["error"].abs().median()),
                "median": float(np.median(np.abs(errors))),
                "bias": float(np.median(errors)),
                **{key: float(np.mean([found[key] for found in speeds])) for key in ("computing", "communication")},
            }
        )
    return {"note": NOTE, "sources": sources}


def _times(rows: "pd.DataFrame", speeds: dict[str, float]) -> np.ndarray:
    """Seconds of the runs when computing and communication are so many times as fast."""
    computing = _share(rows, _COMPUTING)
    communication = _share(rows, _COMMUNICATION)
    slower = computing * (1.0 / speeds["computing"] - 1.0) + communication * (1.0 / speeds["communication"] - 1.0)
    return rows["simulated"].to_numpy(float) * (1.0 + slower)


def _share(rows: "pd.DataFrame", columns: tuple[str, ...]) -> np.ndarray:
    present = [column for column in columns if column in rows]
    return rows[present].fillna(0.0).to_numpy(float).sum(axis=1) if present else np.zeros(len(rows))


def _speeds(others: "pd.DataFrame") -> dict[str, float]:
    names = ("computing", "communication")
    trust = 1.0 / others.groupby("group")["group"].transform("size").to_numpy(float)
    measured = others["measured"].to_numpy(float)
    found, _, _ = estimate(lambda speeds: _times(others, speeds), measured, names, trust=trust)
    return {entry.name: entry.factor for entry in found}
