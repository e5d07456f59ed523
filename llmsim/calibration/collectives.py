"""Collective constants from a log of nccl-tests."""

import re
from pathlib import Path

from llmsim.calibration.estimate import estimate
from llmsim.calibration.nccl_log import OPERATIONS, NcclLog, read_log
from llmsim.calibration.result import Calibration, constant, order
from llmsim.catalogue.collective_constants import collective_constants
from llmsim.catalogue.gpus import gpu, gpus
from llmsim.cluster.topology import load_topology
from llmsim.collective import communicator
from llmsim.collectives.calibrate import Key, constant_keys, constants
from llmsim.collectives.group import Group
from llmsim.collectives.plan import plan_collective
from llmsim.errors import CollectiveError, nearest

_MODEL = re.compile(r"\b[A-Z]{1,2}\d{2,3}[A-Z]?\b")
_MATTERS = 0.005  # least relative change of any time, when a constant changes by a tenth, for it to take part


def calibrate_collectives(
    path: str | Path,
    topology: str,
    operation: str | None = None,
    nodes: int | None = None,
    gpus_per_node: int | None = None,
) -> Calibration:
    """Fit the constants that the times of a log depend on. Nodes and GPUs are the log's unless given.

    Raises `CollectiveError` for what the log does not tell, and the `UserError` of a topology that does not exist.
    """
    log = read_log(path)
    name = operation or log.operation
    if name is None:
        raise CollectiveError(f"{path}: the log does not say which collective ran; give --operation, as all_gather")
    if name not in OPERATIONS:
        known = f"expected one of {', '.join(OPERATIONS)}{nearest(name, OPERATIONS)}"
        raise CollectiveError(f"--operation: {name!r} is no collective; {known}")
    _check_device(log, path, topology)
    group = _group(log, path, topology, nodes, gpus_per_node)
    sizes = [size for size, _ in log.rows]

    def predict(values: dict[Key, float]) -> list[float]:
        with constants(values):
            return [plan_collective(name, size, group).seconds for size in sizes]

    base = _base()
    plain = predict({})
    keys = [key for key in constant_keys() if _matters(predict({key: 1.1 * base[key]}), plain)]
    names = {".".join(key): key for key in keys}
    found, before, after = estimate(
        lambda factors: predict({names[n]: base[names[n]] * f for n, f in factors.items()}),
        [seconds for _, seconds in log.rows],
        list(names),
    )
    fitted = [constant(("collectives", *names[e.name]), e, base[names[e.name]]) for e in found]
    what = f"times of {name} on {group.ranks} GPUs of {group.nodes} node{'s' * (group.nodes > 1)}"
    return Calibration(str(path), what, order(fitted), before, after)


def _base() -> dict[Key, float]:
    values = {}
    for key in constant_keys():
        table = collective_constants()["achieved"]
        for part in key[:-1]:
            table = table[part]
        values[key] = table[key[-1]]
    return values


def _matters(changed: list[float], plain: list[float]) -> bool:
    return any(abs(new / old - 1.0) > _MATTERS for new, old in zip(changed, plain))


def _check_device(log: NcclLog, path: str | Path, topology: str) -> None:
    """Complain where the log was made on GPUs of another model than the topology has, by `H100` in their names."""
    models = {found[0] for name in gpus() if (found := _MODEL.search(gpu(name).label))}
    measured, described = _MODEL.search(log.device), _MODEL.search(load_topology(topology).gpu.label)
    if measured and described and measured[0] in models and measured[0] != described[0]:
        hint = "give the --topology that was measured"
        raise CollectiveError(f"{path}: the log is of {log.device}, and {topology} has {described[0]}; {hint}")


def _group(
    log: NcclLog, path: str | Path, topology: str, nodes: int | None, gpus_per_node: int | None
) -> Group:
    if not log.hosts and nodes is None:
        raise CollectiveError(f"{path}: the log does not list its devices; give --nodes and --gpus-per-node")
    nodes = nodes or log.nodes
    if gpus_per_node is None and log.hosts:
        gpus_per_node = max(1, len(log.hosts) // nodes)
    return communicator(topology, nodes, gpus_per_node).group
