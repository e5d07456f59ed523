"""`scale`: the same scenario on ever more nodes, its throughput against the ideal, and what breaks the scaling."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmsim.errors import UserError
from llmsim.scenario import Scenario
from llmsim.studies.sweep.sweep import sweep

if TYPE_CHECKING:
    import pandas as pd

MODES = ("strong", "weak")
_BROKEN = 0.5  # efficiency below which scaling has broken
_PARTS = {
    "exposed_tp": "tensor parallel communication",
    "exposed_cp": "context parallel communication",
    "exposed_ep": "expert parallel communication",
    "exposed_pp": "pipeline transfers",
    "exposed_dp": "data parallel communication",
    "bubble": "pipeline bubbles",
    "optimizer": "the optimizer step",
    "offload": "offloading",
    "data": "waiting for data",
    "compute": "less efficient kernels",
    "other": "other work",
}


def scale(
    scenario: Scenario | Mapping[str, Any],
    nodes: Sequence[int],
    mode: str = "strong",
    workers: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> "pd.DataFrame":
    """One row for each number of nodes: those of `sweep`, `efficiency` against ideal, and `loss`, where the rest goes.

    mode: `strong` keeps the global batch; `weak` lets it grow with the nodes from what the scenario says for its own.
    Data parallelism takes up the nodes. efficiency: tokens/s a GPU over those of the smallest size that runs. Raises
    `UserError` for a mode or a size that makes no sense.
    """
    if not isinstance(scenario, Scenario):
        scenario = Scenario(**scenario)
    if mode not in MODES:
        raise UserError(f"mode: {mode!r} is not known; expected strong or weak")
    if not nodes or min(nodes) < 1:
        raise UserError(f"nodes: {list(nodes)} is no list of sizes; expected whole numbers from 1 on")
    own, batch = scenario.cluster.nodes, scenario.training.global_batch
    points = []
    for count in sorted(set(nodes)):
        point = {"cluster.nodes": count, "parallelism.dp": None}
        if mode == "weak":
            # At least one sequence; whether the batch then divides is for the scenario to say.
            point["training.global_batch"] = max(1, round(batch * count / own))
        points.append(point)
    table = sweep(scenario, points, workers, progress=progress).drop(columns="parallelism.dp")
    table["efficiency"], table["loss"] = float("nan"), ""
    runs = table[table["status"].isin(("ok", "out_of_memory"))]
    if len(runs):
        table.loc[runs.index, "efficiency"] = runs["tokens_per_s_per_gpu"] / runs["tokens_per_s_per_gpu"].iloc[0]
        for index in runs.index[1:]:
            table.loc[index, "loss"] = _loss(runs.iloc[0], runs.loc[index])
    return table


def verdict(table: "pd.DataFrame") -> str:
    """One sentence: how far it scales, and why no further."""
    runs = table[table["status"].isin(("ok", "out_of_memory"))]
    if not len(runs):
        return f"No size runs; {table['reason'].iloc[0]}"
    first, last = runs.iloc[0], runs.iloc[-1]
    below = runs[runs["efficiency"] < _BROKEN]
    if len(below):
        broken = below.iloc[0]
        return (
            f"Scaling breaks at {broken['cluster.nodes']} nodes: {broken['efficiency']:.0%} of ideal; {broken['loss']}."
        )
    refused = table[(table["status"] == "invalid") & (table["cluster.nodes"] > last["cluster.nodes"])]
    ending = f" Beyond that: {refused['reason'].iloc[0]}" if len(refused) else ""
    return (
        f"From {first['cluster.nodes']} to {last['cluster.nodes']} nodes each GPU keeps "
        f"{last['efficiency']:.0%} of its throughput.{ending}"
    )


def _loss(first: "pd.Series", row: "pd.Series") -> str:
    """The part of the GPUs' time for one token that grew most."""
    grown = {
        name: row[f"time_breakdown.{name}"] / row["iteration_time_s"] / row["tokens_per_s_per_gpu"]
        - first[f"time_breakdown.{name}"] / first["iteration_time_s"] / first["tokens_per_s_per_gpu"]
        for name in _PARTS
    }
    total = 1 / row["tokens_per_s_per_gpu"]
    most = max(grown, key=lambda name: grown[name])
    return f"{_PARTS[most]}: {grown[most] / total:.0%} more of the time" if grown[most] > 0 else ""
