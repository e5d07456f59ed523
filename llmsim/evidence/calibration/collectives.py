"""Collective constants from a log of nccl-tests."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmsim.catalogue.collective_constants import CATALOGUED, Achieved, Key
from llmsim.catalogue.gpus import gpu, gpus
from llmsim.cluster.reading.load import load_topology
from llmsim.collectives import bus_factor
from llmsim.collectives.constants import constant_keys
from llmsim.collectives.group import Group
from llmsim.collectives.plan import plan_collective
from llmsim.errors import CollectiveError, nearest
from llmsim.evidence.calibration.estimate import estimate
from llmsim.evidence.calibration.result import Calibration, constant, order
from llmsim.formats.nccl_log import OPERATIONS, NcclRun, read_log
from llmsim.formats.nccl_table import Row
from llmsim.standalone.collective import communicator

_MODEL = re.compile(r"\b[A-Z]{1,2}\d{2,3}[A-Z]?\b")
_MATTERS = 0.005  # least relative change of any time, when a constant changes by a tenth, for it to take part
_RACK = 16  # more GPUs in a node than any server has: the node is a rack, and a log lists its hosts


@dataclass(frozen=True, slots=True)
class _Measured:
    """The rows of one run, and what ran them."""

    operation: str
    group: Group
    rows: tuple[Row, ...]


def calibrate_collectives(
    path: str | Path,
    topology: str,
    operation: str | None = None,
    nodes: int | None = None,
    gpus_per_node: int | None = None,
) -> Calibration:
    """Fit the constants that the times of a log depend on, over all its runs together, or those of one operation.

    Nodes and GPUs are those of each run's list of devices; nodes and gpus_per_node say it where there is none.
    Raises `CollectiveError` for what the log does not tell, and the `UserError` of a topology that does not exist.
    """
    if operation is not None and operation not in OPERATIONS:
        known = f"expected one of {', '.join(OPERATIONS)}{nearest(operation, OPERATIONS)}"
        raise CollectiveError(f"--operation: {operation!r} is no collective; {known}")
    runs, left_out = _chosen(read_log(path), operation, str(path))
    measured = []
    for name, run in runs:
        _check_device(run, path, topology)
        group = _group(run, path, topology, nodes, gpus_per_node)
        _check_rows(name, run, group, path)
        measured.append(_Measured(name, group, run.rows))
    times = [(m.operation, row.size, m.group, row.seconds) for m in measured for row in m.rows if row.seconds]

    def predict(values: dict[Key, float]) -> list[float]:
        achieved = Achieved.of(values)
        return [
            plan_collective(name, size, replace(group, achieved=achieved)).seconds for name, size, group, _ in times
        ]

    base = {key: CATALOGUED.value(key) for key in constant_keys()}
    plain = predict({})
    keys = [key for key in constant_keys() if _matters(predict({key: 1.1 * base[key]}), plain)]
    names = {".".join(key): key for key in keys}
    found, before, after = estimate(
        lambda factors: predict({names[n]: base[names[n]] * f for n, f in factors.items()}),
        [seconds for *_, seconds in times],
        list(names),
    )
    fitted = [constant(("collectives", *names[e.name]), e, base[names[e.name]]) for e in found]
    return Calibration(str(path), _what(measured), order(fitted), before, after, left_out)


def _what(measured: Sequence[_Measured]) -> str:
    """`times of all_reduce and all_gather on 16 GPUs of 2 nodes`."""
    operations = list(dict.fromkeys(m.operation for m in measured))
    groups = dict.fromkeys((m.group.ranks, m.group.nodes) for m in measured)
    where = [f"{ranks} GPUs of {nodes} node{'s' * (nodes > 1)}" for ranks, nodes in groups]
    return f"times of {_listed(operations)} on {_listed(where)}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _chosen(
    runs: Sequence[NcclRun], operation: str | None, path: str
) -> tuple[list[tuple[str, NcclRun]], tuple[str, ...]]:
    """The runs to fit with their operations, and in words what is left out; `CollectiveError` where nothing is left."""
    wanted: list[tuple[str, NcclRun]] = []
    left_out: dict[str, None] = {}  # an ordered set
    for run in runs:
        name = run.operation or operation or run.guess
        if operation is not None and (name != operation or (len(runs) > 1 and not _may_be(operation, run))):
            left_out |= {name or "a test without name": None}
        elif name is None:
            raise CollectiveError(f"{path}: the log does not say which collective ran; give --operation, as all_gather")
        elif name not in OPERATIONS:
            left_out |= {f"{name} (not modelled)": None}
        else:
            left_out |= {f"{name} ({words})": None for words in _not_read(run)}
            wanted += [(name, run)] if run.rows else []
    if not wanted:
        accepted = f"rows of {operation}" if operation else f"rows of one of {', '.join(OPERATIONS)}"
        raise CollectiveError(f"{path}: nothing in it can be fitted: {', '.join(left_out)}; expected {accepted}")
    return wanted, tuple(left_out)


def _may_be(operation: str, run: NcclRun) -> bool:
    """Whether the bandwidths of a run allow an operation."""
    factor = bus_factor(operation, len(run.hosts)) if run.hosts else 0.0
    return run.operation is not None or not factor or run.factor is None or _near(run.factor, factor)


def _near(factor: float, expected: float) -> bool:
    return abs(factor / expected - 1.0) < 0.03


def _not_read(run: NcclRun) -> list[str]:
    """In words, which rows of a run say nothing."""
    if not (run.rows or run.empty or run.unread):
        return ["a header without rows"]
    words = [f"{_rows(run.empty)} too small to have a size, time and bandwidth above 0"] if run.empty else []
    return words + ([f"{_rows(run.unread)} not of the header's columns"] if run.unread else [])


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count > 1)}"


def _check_rows(operation: str, run: NcclRun, group: Group, path: str | Path) -> None:
    """Complain where sizes, times and bandwidths contradict each other: the columns are not what the header says."""
    for row in run.rows:
        if not row.consistent and row.seconds:
            raise CollectiveError(
                f"{path}:{row.line}: {row.size:.0f} bytes in {row.seconds:.4g} s are "
                f"{row.size / row.seconds / 1e9:.4g} GB/s, and the row says {row.algbw[0] / 1e9:g}; "
                "expected algbw to be size over time"
            )
    if group.ranks < 2 or run.factor == 0.0:
        raise CollectiveError(
            f"{path}:{run.rows[0].line}: this table is of one GPU alone, which transfers nothing; "
            "build nccl-tests with MPI=1, so that all processes run one job"
        )
    expected = bus_factor(operation, group.ranks)
    if run.factor is not None and not _near(run.factor, expected):
        raise CollectiveError(
            f"{path}:{run.rows[-1].line}: busbw is {run.factor:.4g} times algbw, and {operation} on {group.ranks} GPUs "
            f"has {expected:.4g}; check --operation, --nodes and --gpus-per-node"
        )


def _matters(changed: list[float], plain: list[float]) -> bool:
    return any(abs(new / old - 1.0) > _MATTERS for new, old in zip(changed, plain))


def _check_device(run: NcclRun, path: str | Path, topology: str) -> None:
    """Complain where the log was made on GPUs of another model than the topology has, by `H100` in their names."""
    models = {found[0] for name in gpus() if (found := _MODEL.search(gpu(name).label))}
    measured, described = _MODEL.search(run.device), _MODEL.search(load_topology(topology).gpu.label)
    if measured and described and measured[0] in models and measured[0] != described[0]:
        hint = "give the --topology that was measured"
        raise CollectiveError(f"{path}: the log is of {run.device}, and {topology} has {described[0]}; {hint}")


def _group(run: NcclRun, path: str | Path, topology: str, nodes: int | None, gpus_per_node: int | None) -> Group:
    if not run.hosts:
        if nodes is None:
            raise CollectiveError(f"{path}: the log does not list its devices; give --nodes and --gpus-per-node")
        return communicator(topology, nodes, gpus_per_node).group
    listed = Counter(run.hosts)
    if run.doubled:
        raise CollectiveError(
            f"{path}: the list of devices has a rank twice, as of processes that ran side by side without MPI; "
            "build nccl-tests with MPI=1"
        )
    if run.groups > 1:
        raise CollectiveError(
            f"{path}: {run.groups} groups ran side by side (NCCL_TESTS_SPLIT); expected a run of one group"
        )
    cut = run.missing is not None
    if nodes is not None and gpus_per_node is not None and (cut or nodes * gpus_per_node == len(run.hosts)):
        return communicator(topology, nodes, gpus_per_node).group
    if cut:
        raise CollectiveError(f"{path}: the list of devices lacks rank {run.missing}; give --nodes and --gpus-per-node")
    ranks = len(run.hosts)
    if nodes is None and run.nodes > 1 and load_topology(topology).node.gpus > _RACK:
        raise CollectiveError(
            f"{path}: a node of {topology} is a rack, and the log tells {run.nodes} hosts but no racks; give --nodes"
        )
    if nodes is None and len(set(listed.values())) > 1:
        few, many = listed.most_common()[-1], listed.most_common()[0]
        raise CollectiveError(
            f"{path}: {many[0]} has {many[1]} ranks and {few[0]} has {few[1]}; expected as many on each host"
        )
    nodes = nodes or (ranks // gpus_per_node if gpus_per_node and ranks % gpus_per_node == 0 else run.nodes)
    if ranks != nodes * (gpus_per_node or ranks // nodes):
        asked = f"--nodes {nodes}" + (f" with --gpus-per-node {gpus_per_node}" if gpus_per_node else "")
        raise CollectiveError(f"{path}: the log lists {ranks} GPUs, which {asked} does not make; leave them out")
    return communicator(topology, nodes, ranks // nodes).group
