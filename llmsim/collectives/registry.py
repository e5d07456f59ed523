"""Every algorithm by name: what it can do, and the function that gives its phases. A new one is one line here."""

from collections.abc import Callable
from dataclasses import dataclass

from llmsim.collectives import halving_doubling, hierarchical, nvls, pat, point_to_point, ring, tree
from llmsim.collectives.group import Group
from llmsim.collectives.phase import Phase

Planner = Callable[[str, float, Group, str], tuple[tuple[Phase, ...], int]]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """`plan(operation, size, group, protocol)` gives (phases, channels); `chosen_by_nccl`: its tuner knows it."""

    operations: tuple[str, ...]
    protocols: tuple[str, ...]
    plan: Planner
    chosen_by_nccl: bool = True


ALL_PROTOCOLS = ("LL", "LL128", "Simple")

ALGORITHMS: dict[str, Algorithm] = {
    "ring": Algorithm(ring.OPERATIONS, ALL_PROTOCOLS, ring.plan),
    "tree": Algorithm(tree.OPERATIONS, ALL_PROTOCOLS, tree.plan),
    "nvls": Algorithm(nvls.OPERATIONS, ("Simple",), nvls.plan),
    "nvls_tree": Algorithm(("all_reduce",), ("Simple",), nvls.plan_tree),
    "collnet": Algorithm(("all_reduce",), ("Simple",), nvls.plan),
    "pat": Algorithm(pat.OPERATIONS, ("Simple",), pat.plan),
    "hierarchical": Algorithm(hierarchical.OPERATIONS, ALL_PROTOCOLS, hierarchical.plan, False),
    "halving_doubling": Algorithm(halving_doubling.OPERATIONS, ALL_PROTOCOLS, halving_doubling.plan, False),
    "p2p": Algorithm(("all_to_all", "send_recv"), ("LL", "Simple"), point_to_point.plan),
    "p2p_direct": Algorithm(("all_to_all",), ("LL", "Simple"), point_to_point.plan_direct),
}
