"""Simulate every published run and compare: one row a run, in parallel, and summaries of the errors."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from llmsim.errors import CatalogueError, UserError, nearest
from llmsim.evidence.validation.rows import (
    Row,
    framework_of,
    known_reasons,
    memory_definition,
    published_rows,
    scenario_mapping,
    source_of,
)
from llmsim.simulation import simulate

if TYPE_CHECKING:
    import pandas as pd

BREAKDOWN = ("compute", "exposed_tp", "exposed_cp", "exposed_ep", "exposed_pp", "exposed_dp", "bubble", "optimizer",
             "offload", "data", "other")  # fmt: skip
GIB = 2.0**30
_OTHER_SETS = ("collectives", "kernels", "memory", "training")  # of the command; not of published runs


def compare(row: Row, detail: str = "block") -> dict[str, Any]:
    """One run simulated: `error` is simulated / measured - 1; a run that cannot be simulated says why in `reason`."""
    began = time.perf_counter()
    layout = {key: int(float(row.get(key) or 1)) for key in ("tp", "pp", "vpp", "cp", "ep", "dp")}
    record: dict[str, Any] = {
        "id": row["id"],
        "source": source_of(row),
        "framework": framework_of(row),
        "model": row["model_name"],
        "gpu": row["gpu"],
        "gpus": int(float(row["n_gpus"])),
        "layout": " ".join(f"{key}{value}" for key, value in layout.items() if value > 1) or "1 GPU",
        "micro_batch": int(float(row["micro_batch"])),
        "precision": row["precision"].split(" ")[0],
        "recompute": row.get("recompute") or "none",
        "measured": float(row["iteration_time_s"]) if row.get("iteration_time_s") else None,
        "memory_measured_gib": float(row["memory_gib"]) if row.get("memory_gib") else None,
        "known_reason": known_reasons().get(row["id"]),
        "simulated": None,
        "error": None,
        "memory_error": None,
        "memory_definition": memory_definition(row),
        "fits": None,
        "reason": "",
    }
    try:
        metrics = simulate(scenario_mapping(row, detail)).metrics
    except UserError as error:
        record["reason"] = "; ".join(str(error).splitlines())
    except Exception as error:  # one broken run must not hide the others; it is counted and printed
        record["reason"] = f"internal error: {type(error).__name__}: {error}"
    else:
        simulated = metrics["iteration_time_s"]
        record["simulated"] = simulated
        if record["measured"]:
            record["error"] = simulated / record["measured"] - 1.0
        record |= {f"share_{key}": metrics["time_breakdown"][key] / simulated for key in BREAKDOWN}
        record["memory_gib"] = metrics["memory"][f"peak_{record['memory_definition']}_gib"]
        record["fits"] = metrics["memory"]["fits"]
        if record["memory_measured_gib"]:
            record["memory_error"] = record["memory_gib"] / record["memory_measured_gib"] - 1.0
    record["wall_s"] = time.perf_counter() - began
    return record


def select(names: Sequence[str] | None = None) -> tuple[dict[str, str], ...]:
    """Published runs of the given sources (or beginnings of their names), frameworks, GPUs or ids; all without names.

    Raises `CatalogueError` for a name that fits none.
    """
    rows = published_rows()
    if not names:
        return rows
    chosen: dict[str, dict[str, str]] = {}
    for name in names:
        fits = [row for row in rows if _fits(row, name)]
        if not fits:
            known = [*_OTHER_SETS, *sorted({of(row) for row in rows for of in (source_of, framework_of)})]
            raise CatalogueError(f"no published run belongs to {name!r}{nearest(name, known) or _listed(known)}")
        chosen |= {row["id"]: row for row in fits}
    return tuple(row for row in rows if row["id"] in chosen)


def _fits(row: Row, name: str) -> bool:
    wanted = name.lower()
    exact = {row["id"].lower(), row["gpu"].lower(), framework_of(row)}
    return wanted in exact or source_of(row).lower().startswith(wanted)


def _listed(known: Iterable[str]) -> str:
    return f"; known: {', '.join(known)}"


def validate(
    names: Sequence[str] | None = None,
    workers: int = 2,
    progress: Callable[[float], None] | None = None,
    rows: Sequence[Row] | None = None,
    detail: str = "block",
) -> "pd.DataFrame":
    """Simulate published runs; one row each, in the tables' order, with the columns of `compare`.

    names: sources, frameworks, GPUs or ids (None: all). rows: other rows with the same columns, instead of the
    shipped ones. progress: called with the share that is done.
    """
    import pandas as pd

    chosen = list(rows if rows is not None else select(names))
    # The longest pipelines first, so that no worker is left with one at the end.
    order = sorted(range(len(chosen)), key=lambda index: -_effort(chosen[index]))
    records: list[dict[str, Any] | None] = [None] * len(chosen)
    if workers <= 1 or len(chosen) < 4:
        results = (compare(chosen[index], detail) for index in order)
        _collect(results, order, records, progress)
    else:
        with ProcessPoolExecutor(max_workers=min(workers, len(chosen)), initializer=_quiet) as pool:
            tasks = [(chosen[index], detail) for index in order]
            _collect(pool.map(_compare, tasks, chunksize=1), order, records, progress)
    return pd.DataFrame(records)


def _quiet() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _compare(task: tuple[Row, str]) -> dict[str, Any]:
    return compare(*task)


def _collect(results: Iterable[dict], order: Sequence[int], records: list, progress: Callable | None) -> None:
    for done, (index, record) in enumerate(zip(order, results), 1):
        records[index] = record
        if progress:
            progress(done / len(order))


def _effort(row: Row) -> float:
    """What a run costs to simulate, up to a factor: passes of all stages of one pipeline."""
    pp, vpp, dp = (float(row.get(key) or 1) for key in ("pp", "vpp", "dp"))
    micro_batches = float(row["global_batch_sequences"]) / (float(row["micro_batch"]) * dp)
    return pp * vpp * micro_batches
