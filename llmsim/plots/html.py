"""The interactive timeline: one HTML file that holds its data and its own script, and loads nothing else."""

import html
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from llmsim.analysis.columns import map_column
from llmsim.plots.boxes import Ranks, Timeline, lay_out
from llmsim.plots.ink import PHASES
from llmsim.plots.style import COLOURS, ink_on, shade

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROWS = 120_000  # of kernels, and of transfers: beyond it kernels are left out and transfers merged
_MERGE = 5000
_NAMES = {
    "forward": "forward",
    "backward": "backward",
    "weight": "weight gradient",
    "recompute": "recompute (its share of the backward)",
    "optimizer": "optimizer step",
    "communication": "communication",
}


def timeline_html(
    trace: "pd.DataFrame",
    *,
    ranks: Ranks = None,
    time_range: tuple[float, float] | None = None,
    title: str | None = None,
) -> str:
    """A whole HTML page with the timeline of a trace: zoom by wheel, move by dragging, hover for the facts of a box.

    `ranks` and `time_range` as in `plot_timeline`. Raises `UserError` for a rank that is not in the trace.
    """
    timeline = lay_out(trace, ranks, time_range)
    if title is None:
        from llmsim.plots.timeline import default_title

        title = default_title(timeline)
    # "<" never stands bare in the data, so no name in it can end the script element.
    data = json.dumps(_document(trace, timeline), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    here = files("llmsim.plots")
    fields = {
        "title": html.escape(title),
        "data": data,
        "script": here.joinpath("timeline.js").read_text(encoding="utf-8"),
    }
    page = here.joinpath("timeline.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], page)


def _document(trace: "pd.DataFrame", timeline: Timeline) -> dict:
    looks, boxes = _boxes(timeline)
    transfers, kernels, names = _operations(trace, timeline)
    several = len({row.stage for row in timeline.rows}) < len(timeline.rows)
    return {
        "start": timeline.start,
        "end": timeline.end,
        "chunks": timeline.chunks,
        "rows": [
            {
                "label": f"{row.stage} · rank {row.rank}" if several else f"stage {row.stage}",
                "rank": row.rank,
                "ranks": row.ranks,
                "stage": row.stage,
                "bubble": row.bubble,
            }
            for row in timeline.rows
        ],
        "windows": timeline.rows[0].window if timeline.rows else [],
        "looks": looks,
        "boxes": boxes,
        "transfers": transfers,
        "transfer_colour": COLOURS["communication"],
        "kernels": kernels,
        "names": names,
        "legend": _legend(timeline, bool(transfers["row"])),
    }


def _hex(rgb: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def _boxes(timeline: Timeline) -> tuple[list[dict], dict[str, list]]:
    """(looks, columns of the boxes): tasks, the recomputation at their beginning, and the tail."""
    import pandas as pd

    tasks = timeline.tasks.rename(columns={"start_s": "start", "end_s": "end"})
    tasks["what"], tasks["task"] = tasks["kind"].map(PHASES), np.arange(len(tasks))
    again = tasks[tasks["recompute_s"] > 0]
    split = tasks["start"] + tasks["recompute_s"]
    tail = timeline.tail.rename(columns={"start_s": "start", "end_s": "end"})
    tail = tail.assign(micro_batch=-1, chunk=-1, half=0, task=-1)
    parts = [tasks.assign(start=split), again.assign(end=split[again.index], what="recompute"), tail]
    table = pd.concat([part for part in parts if len(part)] or parts[:1])
    table = table.sort_values(["row", "start", "end"], kind="stable")
    keys = list(zip(table["what"], np.maximum(table["chunk"].to_numpy(int), 0).tolist()))
    kinds = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    looks = []
    for what, chunk in kinds:
        rgb = shade(COLOURS[what], chunk, timeline.chunks)
        looks.append({"name": _NAMES[what], "colour": _hex(rgb), "ink": ink_on(rgb), "quiet": what == "recompute"})
    columns = {name: table[name].tolist() for name in ("row", "start", "end", "micro_batch", "chunk", "half")}
    # What hovering tells of a backward with recomputation: its true span, not that of the part under the pointer.
    columns["whole"] = {}
    if len(again):
        spans = dict(zip(again["task"], again[["start", "end", "recompute_s"]].itertuples(index=False, name=None)))
        columns["whole"] = {i: spans[t] for i, t in enumerate(table["task"].tolist()) if t in spans}
    return looks, {**columns, "look": [kinds[key] for key in keys]}


def _operations(trace: "pd.DataFrame", timeline: Timeline) -> tuple[dict, dict, list[str]]:
    """(columns of transfers, of kernels, names that both refer to) of the rows shown."""
    row_of = {row.rank: index for index, row in enumerate(timeline.rows)}
    row = map_column(trace["rank"], row_of)
    start, end = trace["start_s"].to_numpy(float), trace["end_s"].to_numpy(float)
    seen = (row >= 0) & (end > timeline.start) & (start < timeline.end)
    moved = map_column(trace["kind"], {"collective": 1, "p2p": 1}, 0) == 1
    kernel = seen & (map_column(trace["kind"], {"compute": 1}, 0) == 1)
    names: dict[str, int] = {}
    if (seen & moved).sum() > _MOST_ROWS:
        transfers = _merged(timeline, names)
    else:
        group = trace["group"].astype(str).to_numpy() if len(trace) else np.array([], dtype=str)
        label = trace["name"].astype(str).to_numpy()
        label = np.array(
            [f"{n} ({g})" if g and g != n else n for n, g in zip(label[seen & moved], group[seen & moved])]
        )
        transfers = _columns(trace, row, np.flatnonzero(seen & moved), label, names)
    # A block trace has one compute row a task: nothing to see inside.
    detailed = kernel.sum() > 1.5 * len(timeline.tasks) and kernel.sum() <= _MOST_ROWS
    rows = np.flatnonzero(kernel) if detailed else np.array([], dtype=np.int64)
    kernels = _columns(trace, row, rows, trace["name"].astype(str).to_numpy()[rows], names)
    return transfers, {name: kernels[name] for name in ("row", "start", "end", "name")}, list(names)


def _columns(
    trace: "pd.DataFrame", row: np.ndarray, rows: np.ndarray, label: np.ndarray, names: dict[str, int]
) -> dict[str, list]:
    start = trace["start_s"].to_numpy(float)[rows]
    order = np.lexsort((start, row[rows]))
    rows = rows[order]
    columns = {
        "row": row[rows],
        "start": start[order],
        "end": trace["end_s"].to_numpy(float)[rows],
        "name": np.array([names.setdefault(text, len(names)) for text in label[order]], dtype=int),
        "micro_batch": trace["micro_batch"].to_numpy()[rows],
        "chunk": trace["chunk"].to_numpy()[rows],
        "bytes": np.nan_to_num(trace["bytes"].to_numpy(float)[rows]),
    }
    return {name: values.tolist() for name, values in columns.items()}


def _merged(timeline: Timeline, names: dict[str, int]) -> dict[str, list]:
    """Communication per row, when there is too much of it to list: what lies closer than a pixel becomes one."""
    near = (timeline.end - timeline.start) / _MERGE
    name = names.setdefault(f"communication (gaps under 1/{_MERGE} of the time closed)", len(names))
    columns: dict[str, list] = {"row": [], "start": [], "end": [], "share": []}
    for index, row in enumerate(timeline.rows):
        start, end = row.comm
        if len(start):
            first = np.flatnonzero(np.concatenate(([True], start[1:] > end[:-1] + near)))
            columns["row"] += [index] * len(first)
            reach = end[np.append(first[1:] - 1, len(end) - 1)]
            columns["start"] += start[first].tolist()
            columns["end"] += reach.tolist()
            columns["share"] += (np.add.reduceat(end - start, first) / (reach - start[first])).tolist()
    total = len(columns["row"])
    constant = {
        "name": [name] * total,
        "micro_batch": [-1] * total,
        "chunk": [-1] * total,
        "bytes": [0] * total,
    }
    return {**columns, **constant}


def _legend(timeline: Timeline, transfers: bool) -> list[dict]:
    found = {PHASES[kind] for kind in timeline.tasks["kind"].unique()} | set(timeline.tail["what"].unique())
    if (timeline.tasks["recompute_s"] > 0).any():
        found.add("recompute")
    if transfers:
        found.add("communication")
    entries: list[dict] = [{"name": text, "colour": COLOURS[what]} for what, text in _NAMES.items() if what in found]
    entries.append({"name": "waiting", "waiting": True})
    for chunk in range(timeline.chunks if 1 < timeline.chunks <= 4 else 0):
        pair = (_hex(shade(COLOURS[what], chunk, timeline.chunks)) for what in ("forward", "backward"))
        entries.append({"name": f"chunk {chunk}", **dict(zip(("colour", "other"), pair))})
    return entries
