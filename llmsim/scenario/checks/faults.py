"""The list of faults: each kind has its target, and the target exists in the cluster."""

from llmsim.cluster.cluster_of import cluster_of
from llmsim.errors import UserError
from llmsim.scenario.checks.subject import Found, Subject

_TARGET = {"slow_gpu": "gpu", "gpu_down": "gpu", "slow_link": "link", "link_down": "link", "node_down": "node"}


def check_faults(s: Subject) -> Found:
    for position, fault in enumerate(s.scenario.faults):
        key, wanted = f"faults.{position}", _TARGET.get(fault.kind, "node")
        for name in ("gpu", "node", "link"):
            value = getattr(fault, name)
            if value is not None and name != wanted:
                yield f"{key}.{name}", f"{value!r} does not go with kind {fault.kind}; expected the key {wanted}"
        target = getattr(fault, wanted)
        if target is None and fault.kind in _TARGET:
            example = {"gpu": "node0.gpu3", "link": "node0.nic2", "node": "node0"}[wanted]
            yield f"{key}.{wanted}", f"missing; {fault.kind} needs it, such as {wanted}: {example}"
        elif target is not None:
            yield from _missing_target(s, key, wanted, target)
        if fault.kind in ("slow_gpu", "slow_link") and fault.factor is None:
            yield f"{key}.factor", f"missing; {fault.kind} needs the share of speed that is left, such as 0.8"
        if fault.kind == "loader_stall":
            if s.scenario.data.storage is None:
                yield f"{key}.kind", "loader_stall needs a loader; expected data.storage, such as {bandwidth: 10 GB/s}"
            if fault.factor is None and fault.until is None:
                yield f"{key}.until", "missing; a loader that stalls for ever ends the run; expected such as 30 s"
        if fault.until is not None and fault.until <= fault.start:
            yield f"{key}.until", f"{fault.until:g} s is not after from {fault.start:g} s"


def _missing_target(s: Subject, key: str, wanted: str, target: str) -> Found:
    if wanted == "node":
        last = s.scenario.cluster.nodes - 1
        number = target.removeprefix("node")
        if not number.isdigit() or int(number) > last:
            yield f"{key}.node", f"there is no node {target!r} in this cluster; names go from node0 to node{last}"
        return
    cluster = cluster_of(s.topology, s.scenario.cluster.nodes, s.scenario.cluster.gpus_per_node)
    try:
        cluster.find_gpu(target) if wanted == "gpu" else cluster.find_link(target)
    except UserError as error:
        yield f"{key}.{wanted}", str(error)
