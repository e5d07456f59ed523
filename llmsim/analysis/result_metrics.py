"""The figures of a result (tokens/s, MFU, bubbles, costs) from its time, its program and its bill."""

from typing import Any

import numpy as np

from llmsim.analysis.metrics import bottleneck, bubbles, counts, rates
from llmsim.analysis.played.link_bytes import network_metrics
from llmsim.analysis.played.memory_bound import memory_bound_share
from llmsim.analysis.played.recording import record
from llmsim.analysis.played.time_ledger import account, mean_breakdown
from llmsim.economics.bill import training_bill
from llmsim.economics.reading import data_metrics, training_tokens
from llmsim.engine.player import Played
from llmsim.program.program import Program
from llmsim.scenario import Scenario


def result_metrics(scenario: Scenario, program: Program, played: Played, memory: dict[str, Any]) -> dict[str, Any]:
    resolved, training = scenario.resolve(), scenario.training
    layout, count = resolved.layout, program.classes.count
    accounts = account(record(program, played))
    iteration = accounts.iteration
    tokens = training.global_batch * training.seq_len
    share = count / count.sum()
    breakdown = mean_breakdown(accounts, count)
    peak = resolved.topology.gpu.peak(training.precision)
    metrics: dict[str, Any] = {
        "name": scenario.name,
        "gpus": layout.ranks,
        "layout": {key: getattr(layout, key) for key in ("tp", "pp", "vpp", "cp", "ep", "dp", "micro_batches")},
        **counts(resolved.architecture, training.seq_len),
        **rates(
            resolved.architecture, training.seq_len, tokens, layout.ranks, peak, iteration,
            float((accounts.flops * count).sum()), float((accounts.peak_seconds * count).sum()),
        ),
        **bubbles(accounts.waiting, accounts.busy, accounts.window[1] - accounts.window[0], program.stage_of, count),
        "time_breakdown": breakdown,
        "overlap": {
            group: float((accounts.hidden[group] * count).sum() / (total * count).sum())
            for group, total in sorted(accounts.total.items())
            if (total * count).sum() > 0
        },
    }  # fmt: skip
    bound = memory_bound_share(program, peak, resolved.topology.gpu.memory_bandwidth)
    metrics["memory"] = memory
    metrics["network"] = network_metrics(program, played, iteration)
    metrics["launch_wait_s"] = float((accounts.launching * share).sum())
    metrics |= bottleneck(breakdown, memory, bound, metrics["launch_wait_s"])
    metrics |= data_metrics(scenario, metrics["tokens_per_s"], breakdown["data"] / iteration)
    if wanted := training_tokens(scenario):
        metrics["time_to_train_s"] = float(np.ceil(wanted / tokens) * iteration)
        metrics |= training_bill(scenario, metrics["time_to_train_s"], breakdown)
    return metrics
