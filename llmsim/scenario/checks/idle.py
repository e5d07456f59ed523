"""Keys that are given and change nothing in the combination at hand: said, not refused.

A sweep over `parallelism.cp` may hold 1 beside a `cp_kind`, and one layout of a search may be without a pipeline;
refusing the key there would refuse the whole sweep. So these are warnings: a line on stderr of the commands that open a
scenario.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from llmsim.scenario.checks.subject import Found, Subject

Idle = Callable[[Subject], bool]


def _tp(s: Subject) -> bool:
    return s.scenario.parallelism.tp == 1


def _pp(s: Subject) -> bool:
    return s.scenario.parallelism.pp == 1


def _dense(s: Subject) -> bool:
    return s.architecture.moe is None


def _ep(s: Subject) -> bool:
    return s.architecture.moe is None or s.scenario.parallelism.ep == 1


def _nothing_is_drawn(s: Subject) -> bool:
    return not s.scenario.simulation.jitter and s.scenario.cluster.routing == "ideal"


# (key, when it changes nothing, how that is said)
IDLE: tuple[tuple[str, Idle, str], ...] = (
    ("parallelism.cp_kind", lambda s: s.scenario.parallelism.cp == 1, "with cp 1"),
    ("parallelism.sequence_parallel", lambda s: _tp(s) and _dense(s), "with tp 1"),
    ("parallelism.regather", _tp, "with tp 1"),
    ("parallelism.scatter_gather", lambda s: _tp(s) or _pp(s), "with tp 1 or pp 1"),
    ("parallelism.etp", _dense, "without experts"),
    ("parallelism.dispatch", _ep, "with ep 1"),
    ("parallelism.expert_imbalance", _dense, "without experts"),
    ("parallelism.reshard", lambda s: s.scenario.parallelism.zero < 3, "below zero 3"),
    ("training.overlap.pipeline", _pp, "with pp 1"),
    ("training.overlap.tp", _tp, "with tp 1"),
    ("training.overlap.tp_grad", _tp, "with tp 1"),
    ("training.overlap.param_gather", lambda s: s.scenario.parallelism.zero == 0, "with zero 0"),
    ("training.host.experts", _dense, "without experts"),
    ("training.host.experts_backward", _dense, "without experts"),
    ("simulation.seed", _nothing_is_drawn, "without jitter and ecmp-hash"),
    ("cluster.routing", lambda s: s.scenario.cluster.nodes == 1, "on one node"),
)


def warn_idle(s: Subject) -> Found:
    for key, idle, when in IDLE:
        if s.scenario.says(key) and idle(s):
            value, default = _at(s.scenario, key), _default(s.scenario, key)
            if value != default:
                yield key, f"has no effect {when}"


def _at(scenario: Any, key: str) -> Any:
    return reduce(getattr, key.split("."), scenario)


def _default(scenario: Any, key: str) -> Any:
    *above, name = key.split(".")
    section = reduce(getattr, above, scenario)
    return type(section).model_fields[name].default
