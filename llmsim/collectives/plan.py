"""From (operation, size, group) to the phases of the collective that NCCL would run."""

from functools import lru_cache

from llmsim.collectives.group import Group
from llmsim.collectives.phase import CollectivePlan, Phase
from llmsim.collectives.ring import ring_phases
from llmsim.errors import CollectiveError, nearest

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "send_recv")


@lru_cache(maxsize=65536)
def plan_collective(
    operation: str, size: float, group: Group, algorithm: str = "auto", protocol: str = "auto"
) -> CollectivePlan:
    """The plan of one collective; raises `CollectiveError` for what does not exist or cannot run on this group."""
    if operation not in OPERATIONS:
        raise CollectiveError(
            f"{operation!r} is not a collective; expected one of {', '.join(OPERATIONS)}{nearest(operation, OPERATIONS)}"
        )
    if not size >= 0:
        raise CollectiveError(f"a {operation} of {size!r} bytes cannot run; expected a size of 0 or more")
    n, m = group.ranks, group.nodes
    if n == 1 or size == 0:
        return CollectivePlan(operation, "none", "Simple", 0, size, n, ())
    intra = 0.78 * group.scale_up_bandwidth
    inter = 0.94 * group.nic_bandwidth * group.nics
    hop, crossing = 2e-6, 15e-6 + group.fabric_latency
    if operation == "send_recv":
        bw = intra if m == 1 else min(intra, inter / group.per_node)
        own = (size, 0.0) if m == 1 else (0.0, size)
        phases = (Phase(1, crossing if m > 1 else hop + 5e-6, size / bw, *own),)
        return CollectivePlan(operation, "p2p", "Simple", 8, size, n, phases)
    if operation == "all_to_all":
        block = size / n
        far = block * (n - group.per_node)
        near = block * (group.per_node - 1)
        seconds = max(near / intra, far / (inter / group.per_node))
        phases = (Phase(1, (crossing if m > 1 else hop) + 5e-6, seconds, near, far),)
        return CollectivePlan(operation, "p2p", "Simple", 8, size, n, phases)
    bw = intra if m == 1 else min(intra, inter)
    rounds = 2 if operation == "all_reduce" else 1
    steps, crossings = rounds * (n - 1), rounds * (m - 1)
    block = size / n * (n / (n - 1) if operation == "broadcast" else 1.0)
    phases = ring_phases(steps, crossings, block, bw, hop, crossing, m / n if m > 1 else 0.0, 16)
    return CollectivePlan(operation, "ring", "Simple", 16, size, n, phases)
