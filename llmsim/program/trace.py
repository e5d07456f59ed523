"""What was played, as a trace: rows of every class with the columns of the contract."""

from typing import TYPE_CHECKING

import numpy as np

from llmsim.engine.player import Played
from llmsim.program.build import Program
from llmsim.program.labels import CATEGORIES, Label
from llmsim.trace import trace_from_arrays

if TYPE_CHECKING:
    import pandas as pd


def build_trace(program: Program, played: Played, labelled: bool = False) -> "pd.DataFrame":
    """One row an op of each class; a transfer between stages is a row of the sender and one of the receiver.

    labelled: with a further column `label`, the index into `program.labels`.
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

    def text(name: str) -> tuple[np.ndarray, list[str]]:
        values = sorted({getattr(entry, name) for entry in program.labels})
        code = {value: index for index, value in enumerate(values)}
        return np.array([code[getattr(entry, name)] for entry in program.labels])[label], values

    def tagged(name: str) -> np.ndarray:
        return np.array([getattr(entry, name) for entry in program.tags])[tag]

    stream, streams = text("stream")
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
        "exposed": np.array([_exposed(entry) for entry in program.labels])[label],
        "label": label,
    }
    texts = {"stream": (stream, streams)} | {name: text(name) for name in ("kind", "name", "phase", "group")}
    return trace_from_arrays(columns, texts, ("label",) if labelled else ())


def _exposed(label: Label) -> float:
    """The share of a block's time in which it does not compute."""
    return 0.0 if label.shares is None else 1.0 - label.shares[CATEGORIES.index("compute")]
