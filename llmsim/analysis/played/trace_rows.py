"""What was played, as a trace: rows of every class with the columns of the contract."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmsim.engine.player import Played
from llmsim.program.program import Program
from llmsim.trace import inside_text, trace_from_arrays

if TYPE_CHECKING:
    import pandas as pd


def build_trace(program: Program, played: Played) -> "pd.DataFrame":
    """One row an op of each class; a transfer between stages is a row of the sender and one of the receiver.

    A transfer for which its sender stops computing is on the sender's lane `compute`.
    """
    rows = np.concatenate(played.rows)
    owner = np.repeat([lane.owner for lane in program.plan.lanes], [len(part) for part in played.rows])
    label = rows[:, 0].astype(np.int64)
    peer = np.array([label.peer for label in program.labels])[label]
    received = np.nonzero(peer >= 0)[0]
    take = np.concatenate((np.arange(len(rows)), received))
    owner = np.concatenate((owner, peer[received]))
    is_receipt = np.arange(len(take)) >= len(rows)
    label, tag = label[take], rows[take, 1].astype(np.int64)

    def column(name: str, dtype: type) -> np.ndarray:
        return np.array([getattr(entry, name) for entry in program.labels], dtype=dtype)[label]

    def tagged(name: str) -> np.ndarray:
        return np.array([getattr(entry, name) for entry in program.tags])[tag]

    stream, streams = _numbered([entry.stream for entry in program.labels], label)
    if "pp_recv" not in streams:
        streams = [*streams, "pp_recv"]
    stream = np.where(is_receipt, streams.index("pp_recv"), stream)
    classes = program.classes
    columns = {
        "rank": classes.representative[owner],
        "ranks": classes.count[owner],
        "stage": program.stage_of[owner],
        "micro_batch": tagged("micro_batch"),
        "chunk": tagged("chunk"),
        "iteration": tagged("iteration"),
        "layer": column("layer", int),
        "start_s": rows[take, 2],
        "end_s": rows[take, 3],
        "flops": column("flops", float),
        "bytes": column("bytes", float),
    }
    texts = {"stream": (stream, streams), "lane": _lanes(program, played, received)}
    texts["inside"] = _numbered([inside_text(entry.inside) for entry in program.labels], label)
    for name in ("kind", "name", "phase", "group"):
        texts[name] = _numbered([getattr(entry, name) for entry in program.labels], label)
    return trace_from_arrays(columns, texts)


def _numbered(values: Sequence[str], index: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Of `values[index]` the codes and what they stand for."""
    known = sorted(set(values))
    code = {value: number for number, value in enumerate(known)}
    return np.array([code[value] for value in values])[index], known


def _lanes(program: Program, played: Played, received: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The lane of each row of each lane, and of the `received` ones again where they arrive."""
    stops = {"pp_send": "compute"} if program.blocking else {}
    names = [stops.get(lane.name, lane.name) for lane in program.plan.lanes]
    codes, known = _numbered(names, np.repeat(np.arange(len(names)), [len(rows) for rows in played.rows]))
    return np.concatenate((codes, np.full(len(received), len(known)))), [*known, "pp_recv"]
