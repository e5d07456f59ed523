"""A trace in Chrome's trace event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format", Google (complete events `X`, metadata `M`; times in microseconds). A process is a rank, a
thread one of its streams; the arguments of an event are the other columns of its row.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_ARGUMENTS = ("phase", "micro_batch", "chunk", "layer", "group", "flops", "bytes", "iteration")
_MICRO = 1e6


def chrome_trace(trace: "pd.DataFrame", name: str = "llmsim") -> str:
    """One JSON document with an event for each row of `trace` (CONTRACT section 4). Missing integers are left out."""
    streams = {stream: number for number, stream in enumerate(sorted(set(trace["stream"])))}
    events = [*_labels(trace, streams), *_events(trace, streams)]
    return json.dumps({"displayTimeUnit": "ms", "otherData": {"name": name}, "traceEvents": events}, allow_nan=False)


def _labels(trace: "pd.DataFrame", streams: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Names of processes and threads, and their order: by stage, then by rank."""
    about = trace.drop_duplicates("rank").sort_values(["stage", "rank"])
    for order, (rank, ranks, stage) in enumerate(zip(about["rank"], about["ranks"], about["stage"])):
        alike = f" and {ranks - 1} alike" if ranks > 1 else ""
        yield _label("process_name", rank, {"name": f"stage {stage}: rank {rank}{alike}"})
        yield _label("process_sort_index", rank, {"sort_index": order})
    for rank, stream in trace[["rank", "stream"]].drop_duplicates().itertuples(index=False):
        yield _label("thread_name", rank, {"name": str(stream)}, streams[stream])


def _label(kind: str, rank: int, arguments: dict[str, Any], thread: int = 0) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": int(rank), "tid": thread, "args": arguments}


def _events(trace: "pd.DataFrame", streams: dict[str, int]) -> Iterator[dict[str, Any]]:
    columns = ["rank", "stream", "kind", "name", "start_s", "end_s", *_ARGUMENTS]
    for rank, stream, kind, name, start, end, *rest in zip(*(trace[column].tolist() for column in columns)):
        yield {
            "name": name,
            "cat": kind,
            "ph": "X",
            "ts": start * _MICRO,
            "dur": (end - start) * _MICRO,
            "pid": rank,
            "tid": streams[stream],
            "args": {key: value for key, value in zip(_ARGUMENTS, rest) if value not in (-1, "", 0.0)},
        }
