"""Pipeline schedules side by side, on the same model: who is shortest, and who is within a memory limit."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING

from llmsim.errors import ScheduleError
from llmsim.parallel.schedules import default_chunks, needs_times, takes_any_chunks
from llmsim.parallel.schedules.evaluate import Times, stage_times
from llmsim.parallel.schedules.registry import is_table
from llmsim.standalone.pipeline import ScheduleResult, simulate_schedule

if TYPE_CHECKING:
    import pandas as pd


def simulate_share(
    name: str,
    stages: int,
    micro_batches: int,
    chunks: int | None = None,
    forward: Times = 1.0,
    backward: Times = 1.0,
    weight: Times = 1.0,
    comm: float = 0.0,
    memory_limit: float | None = None,
) -> ScheduleResult:
    """A schedule (or a table of ops) with the same work for every number of chunks.

    forward, backward, weight: seconds of a p-th part of the model, a number or one for each of the `stages` parts;
    with v chunks a rank each part is cut into v equal ones. chunks: of schedules that take any number. memory_limit:
    in micro-batch activations of a rank, for a schedule that searches. Raises `ScheduleError`.
    """
    count = chunks if chunks is not None and takes_any_chunks(name) else default_chunks(name)
    given = stage_times(stages, forward, backward, weight)
    cut = {kind: [time / count for time in times for _ in range(count)] for kind, times in given.items()}
    options = {"memory_limit": memory_limit} if needs_times(name) and memory_limit is not None else {}
    return simulate_schedule(
        name, stages, micro_batches, None if is_table(name) else count, cut["F"], cut["B"], cut["W"], comm, **options
    )


def compare_schedules(
    names: Iterable[str],
    stages: int | Sequence[int],
    micro_batches: int | Sequence[int],
    chunks: int | Sequence[int] | None = None,
    memory_limit: float | None = None,
    **times: Times,
) -> "pd.DataFrame":
    """One row for each schedule and size: makespan, bubble and memory, and where each is possible and shortest.

    stages, micro_batches, chunks: a number, or several to see how the bubble changes. memory_limit: in micro-batch
    activations of a rank. times: as `simulate_share` takes them. Columns: `schedule, stages, micro_batches, chunks,
    makespan_s, bubble_fraction, bubble_over_ideal, span_bubble_s, activations, parameter_copies, fits, best, error`.
    activations: most micro-batches a rank holds at a time, through all of its chunks. A schedule that cannot run with
    a size keeps its row, with the reason in `error`. Raises `ScheduleError` when no row can run.
    """
    import pandas as pd

    names, rows = list(names), []
    for name in names:
        default_chunks(name)  # an unknown name is no row of a table
    for name, p, m, v in product(names, *map(_several, (stages, micro_batches, chunks))):
        row = {"schedule": name, "stages": p, "micro_batches": m, "chunks": v, "fits": False, "error": ""}
        try:
            row |= _row(simulate_share(name, p, m, v, **times, memory_limit=memory_limit), memory_limit)
        except ScheduleError as error:
            row["error"] = str(error)
        rows.append(row)
    if not rows:
        raise ScheduleError("no schedules to compare; expected names such as 1f1b and zb-h1")
    if all(row["error"] for row in rows):
        raise ScheduleError(rows[0]["error"])
    # Schedules with a fixed number of chunks come once, however many were asked for.
    table = pd.DataFrame(rows).drop_duplicates(["schedule", "stages", "micro_batches", "chunks"], ignore_index=True)
    shortest = table[table["fits"]].groupby(["stages", "micro_batches"])["makespan_s"].transform("min")
    table["best"] = table["fits"] & (table["makespan_s"] <= shortest.reindex(table.index) * (1 + 1e-9))
    return table


def _row(result: ScheduleResult, memory_limit: float | None) -> dict[str, object]:
    order = result.schedule
    held = max(result.peak_activations) / order.chunks
    return {
        "chunks": order.chunks,
        "makespan_s": result.makespan_s,
        "bubble_fraction": result.bubble_fraction,
        "bubble_over_ideal": result.bubble_over_ideal,
        "span_bubble_s": result.span_bubble_s,
        "activations": held,
        "parameter_copies": order.parameter_copies,
        "fits": memory_limit is None or held <= memory_limit * (1 + 1e-9),
    }


def _several(value: int | Sequence[int] | None) -> Sequence[int | None]:
    return value if isinstance(value, Sequence) else [value]
