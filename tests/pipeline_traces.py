"""Traces for tests, played from the definitions of a few schedules by a dozen lines that share nothing with llmsim.

An order is, for each stage, a list of (kind, chunk, micro_batch); kind is F, B, W or BW.
"""

from itertools import pairwise

import numpy as np
import pandas as pd

PHASE = {"F": "forward", "B": "backward", "BW": "backward", "W": "weight"}


def gpipe(p, m):
    return [[("F", 0, i) for i in range(m)] + [("BW", 0, i) for i in range(m)] for _ in range(p)]


def one_f_one_b(p, m):
    orders = []
    for r in range(p):
        warm = min(p - 1 - r, m)
        order = [("F", 0, i) for i in range(warm)]
        for k in range(m):
            order += [("F", 0, warm + k)] * (warm + k < m) + [("BW", 0, k)]
        orders.append(order)
    return orders


def zb_h1(p, m):
    orders = []
    for r, fused in enumerate(one_f_one_b(p, m)):
        order = []
        for kind, chunk, i in fused:
            order.append(("B" if kind == "BW" else kind, chunk, i))
            if kind == "BW" and i >= r:
                order.append(("W", chunk, i - r))
        orders.append(order + [("W", 0, i) for i in range(max(0, m - r), m)])
    return orders


def interleaved(p, m, v):
    def unit(k):
        return (k // p) % v, k // (p * v) * p + k % p

    orders = []
    for r in range(p):
        warm = min(2 * (p - 1 - r) + (v - 1) * p, m * v)
        order = [("F", *unit(k)) for k in range(warm)]
        for k in range(m * v):
            order += [("F", *unit(warm + k))] * (warm + k < m * v)
            chunk, i = unit(k)
            order.append(("BW", v - 1 - chunk, i))
        orders.append(order)
    return orders


def play(orders, v=1, times=None, comm=0.0):
    """Earliest times: rows (stage, kind, chunk, micro_batch, start, end); virtual stage = chunk * p + rank."""
    p, seconds = len(orders), {"F": 1.0, "B": 1.0, "W": 1.0, "BW": 2.0} | (times or {})
    done, clock, place, rows = {}, [0.0] * p, [0] * p, []
    while len(rows) < sum(map(len, orders)):
        before = len(rows)
        for r in range(p):
            while place[r] < len(orders[r]):
                kind, chunk, i = orders[r][place[r]]
                s = chunk * p + r
                needs = []
                if kind == "F" and s:
                    needs = [("F", s - 1, i, comm)]
                elif kind in ("B", "BW"):
                    needs = [("F", s, i, 0.0)] + [("B", s + 1, i, comm)] * (s + 1 < p * v)
                elif kind == "W":
                    needs = [("B", s, i, 0.0)]
                if any(need[:3] not in done for need in needs):
                    break
                start = max([clock[r]] + [done[need[:3]] + need[3] for need in needs])
                clock[r] = done[(kind[0], s, i)] = start + seconds[kind]
                rows.append((r, kind, chunk, i, start, clock[r]))
                place[r] += 1
        assert len(rows) > before, "deadlock"
    return rows


def block_trace(rows, *, ranks=1, tail=0.0, update=0.0, sends=0.0):
    """The `block` trace of played rows; with gradients' reduction (`tail`), optimizer (`update`) and p2p sends (s)."""
    p = max(row[0] for row in rows) + 1
    records = [
        (r * ranks, ranks, r, "compute", "compute", PHASE[k], PHASE[k], i, c, "", a, b, 1e12, 0.0)
        for r, k, c, i, a, b in rows
    ]
    if sends:
        records += [
            (r * ranks, ranks, r, "pp_send", "p2p", "send", PHASE[k], i, c, "pp", b, b + sends, 0.0, 1e6)
            for r, k, c, i, a, b in rows
            if k != "W"
        ]
    ends = {r: max(row[5] for row in rows if row[0] == r) for r in range(p)}
    for r, end in ends.items():
        if tail:
            records.append(
                (
                    r * ranks,
                    ranks,
                    r,
                    "dp",
                    "collective",
                    "all_reduce",
                    "backward",
                    -1,
                    -1,
                    "dp",
                    end - 0.5 * tail,
                    end + tail,
                    0.0,
                    1e9,
                )
            )
        if update:
            step = max(ends.values()) + tail
            records.append(
                (
                    r * ranks,
                    ranks,
                    r,
                    "compute",
                    "optimizer",
                    "adam",
                    "update",
                    -1,
                    -1,
                    "",
                    step,
                    step + update,
                    0.0,
                    1e9,
                )
            )
    return _frame(records)


def kernel_trace(rows, layers, *, recompute=False):
    """Each task as `layers` x (kernel, TP collective), a fused backward with the weight gradient's kernels between."""
    records = []
    for r, k, c, i, a, b in rows:
        edges = np.linspace(a, b, 3 * layers + 1)
        for index, (start, end) in enumerate(pairwise(edges)):
            part = index % 3
            phase = PHASE[k]
            if k == "BW" and part == 1:
                phase = "weight"
            if k in ("B", "BW") and part == 0 and recompute:
                phase = "recompute"
            talk = part == 2 and k != "W"
            records.append(
                (
                    r,
                    1,
                    r,
                    "tp" if talk else "compute",
                    "collective" if talk else "compute",
                    "all_reduce" if talk else "gemm",
                    phase,
                    i,
                    c,
                    "tp" if talk else "",
                    start,
                    end,
                    1e12,
                    1e6,
                )
            )
    return _frame(records)


def _frame(records):
    columns = [
        "rank",
        "ranks",
        "stage",
        "stream",
        "kind",
        "name",
        "phase",
        "micro_batch",
        "chunk",
        "group",
        "start_s",
        "end_s",
        "flops",
        "bytes",
    ]
    frame = pd.DataFrame(records, columns=columns)
    frame["layer"], frame["iteration"] = -1, 0
    return frame


def memory_table(rows, stages, size=2.0**30):
    """Parameters, and activations from F to the end of W or BW, as the levels of each category over time."""
    records = []
    for stage in range(stages):
        records.append((stage, 0.0, 12 * size, "parameters"))
        records.append((stage, 0.0, 24 * size, "optimizer"))
        own = [row for row in rows if row[0] == stage]
        events = [(row[4], 1) for row in own if row[1] == "F"] + [(row[5], -1) for row in own if row[1] in ("W", "BW")]
        level = 0
        for time, change in sorted(events):
            level += change
            records.append((stage, time, level * 3 * size, "activations"))
    return pd.DataFrame(records, columns=["rank", "time_s", "allocated_bytes", "category"])
