"""From (operation, size, group) to the phases of the collective that NCCL would run."""

from functools import lru_cache

from llmsim.collectives.group import Group
from llmsim.collectives.phase import CollectivePlan
from llmsim.collectives.point_to_point import plan_once, protocols_of
from llmsim.collectives.registry import ALGORITHMS
from llmsim.collectives.tuner import PROTOCOLS, allowed, candidates
from llmsim.errors import CollectiveError, nearest

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "send_recv")


@lru_cache(maxsize=65536)
def plan_collective(
    operation: str, size: float, group: Group, algorithm: str = "auto", protocol: str = "auto"
) -> CollectivePlan:
    """The plan of one collective of `size` bytes; a group of one, or no bytes, takes no time.

    Raises `CollectiveError` for what does not exist or cannot run on this group.
    """
    _check("collective", operation, OPERATIONS)
    _check("collective algorithm", algorithm, ("auto", *ALGORITHMS))
    _check("protocol", protocol, ("auto", *PROTOCOLS))
    if not 0 <= size < float("inf"):
        raise CollectiveError(f"{operation} of {size!r} bytes cannot run; expected a finite size of 0 or more")
    if group.ranks == 1 or size == 0:
        return CollectivePlan(operation, "none", "Simple", 0, size, group.ranks, ())
    if operation in ("all_to_all", "send_recv"):
        pairs = _point_to_point(operation, size, group, algorithm, protocol)
    elif algorithm != "auto" and not ALGORITHMS[algorithm].chosen_by_nccl:
        pairs = [(algorithm, "Simple" if protocol == "auto" else protocol)]
    else:
        pairs = candidates(operation, size, group, algorithm, protocol)
    plans = []
    for name, wire in pairs:
        if operation in ALGORITHMS[name].operations and wire in ALGORITHMS[name].protocols:
            phases, channels = ALGORITHMS[name].plan(operation, size, group, wire)
            plans.append(CollectivePlan(operation, name, wire, channels, size, group.ranks, phases))
    if not plans:
        raise CollectiveError(_impossible(operation, group, algorithm, protocol))
    return min(plans, key=lambda plan: plan.seconds)


@lru_cache(maxsize=65536)
def plan_dispatch(size: float, group: Group, copies: int, nodes: int) -> CollectivePlan:
    """An all-to-all of tokens that reach each node once: `copies` of each, `size` bytes with all copies.

    nodes: most nodes that a token goes to, 0 being any.
    """
    if group.ranks == 1 or size == 0:
        return CollectivePlan("all_to_all", "none", "Simple", 0, size, group.ranks, ())
    phases, sms = plan_once(size, group, copies, nodes)
    return CollectivePlan("all_to_all", "deduplicated", "Simple", sms, size, group.ranks, phases)


def _point_to_point(operation: str, size: float, group: Group, algorithm: str, protocol: str) -> list[tuple[str, str]]:
    able = [name for name, a in ALGORITHMS.items() if operation in a.operations]
    name = able[0] if algorithm == "auto" else algorithm
    message = size / group.ranks if operation == "all_to_all" else size
    return [(name, wire) for wire in (protocols_of(message) if protocol == "auto" else (protocol,))]


def _check(noun: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise CollectiveError(f"{name!r} is not a {noun}; expected one of {', '.join(known)}{nearest(name, known)}")


def _impossible(operation: str, group: Group, algorithm: str, protocol: str) -> str:
    where = f"{group.ranks} ranks on {group.nodes} nodes ({group.architecture}, {group.scale_up})"
    able = [
        name
        for name, a in ALGORITHMS.items()
        if operation in a.operations
        and (not a.chosen_by_nccl or name == "p2p" or any(allowed(operation, name, p, group) for p in PROTOCOLS))
    ]
    return (
        f"{operation} by {algorithm!r} with protocol {protocol!r} cannot run on {where}; "
        f"expected one of {', '.join(able)}"
    )
