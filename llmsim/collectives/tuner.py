"""What NCCL believes a collective takes: its tuner (NVIDIA/nccl src/graph/tuning.cc), which picks the cheapest.

time = latency + size / bandwidth for every (algorithm, protocol). What a choice then takes is
`llmsim.collectives.achieved`; where NCCL's estimate would keep to a pair of small messages although the next one is
faster by then, the faster is taken (`candidates`). In nccl-tests sweeps time does not fall as messages grow, beyond
noise, so it is the estimate that is off there, as for GPUs that stage in host memory.
"""

from functools import lru_cache
from math import log2

from llmsim.catalogue.collective_constants import collective_constants
from llmsim.collectives.channels import search_channels
from llmsim.collectives.group import Group

PROTOCOLS = ("LL", "LL128", "Simple")


def _scale_index(nodes: int) -> int:
    return 0 if nodes == 1 else 1 if nodes == 2 else 2


def allowed(operation: str, algorithm: str, protocol: str, group: Group) -> bool:
    """Whether NCCL would consider this pair on this group at all."""
    nvswitch = group.scale_up == "nvswitch" and group.per_node > 1
    if protocol == "LL128" and group.scale_up not in ("nvswitch", "cube-mesh"):
        return False
    if protocol != "Simple" and group.nodes > 1 and group.fabric in collective_constants()["nccl"]["simple_only"]:
        return False
    if algorithm == "ring":
        return True
    if algorithm == "tree":
        return operation == "all_reduce"
    if algorithm == "pat":
        return operation in ("all_gather", "reduce_scatter") and group.per_node == 1 and protocol == "Simple"
    if protocol != "Simple" or not nvswitch:
        return False
    if algorithm == "nvls":
        gather = operation in ("all_gather", "reduce_scatter")
        return (
            group.nvls
            and (operation == "all_reduce" or gather)
            and group.per_node > 1
            and (group.nodes == 1 or group.sharp)
        )
    if algorithm == "nvls_tree":
        return group.nvls and operation == "all_reduce" and group.nodes > 1
    if algorithm == "collnet":
        return group.sharp and operation == "all_reduce" and group.nodes > 1
    return False


@lru_cache(maxsize=16384)
def nccl_terms(operation: str, algorithm: str, protocol: str, group: Group) -> tuple[float, float]:
    """(latency in s, algorithm bandwidth in bytes/s) of NCCL's model; bandwidth 0 means not allowed."""
    if not allowed(operation, algorithm, protocol, group):
        return 0.0, 0.0
    return _latency(operation, algorithm, protocol, group), _bandwidth(operation, algorithm, protocol, group)


def _latency(operation: str, algorithm: str, protocol: str, group: Group) -> float:
    nccl = collective_constants()["nccl"]
    p = PROTOCOLS.index(protocol)
    n, m = group.ranks, group.nodes
    links = "nvlink" if group.scale_up in ("nvswitch", "cube-mesh") else "pcie"
    hop = max(nccl["hop_latency"][links][algorithm][p] + group.local_latency, 0.0)
    network = nccl["hop_latency"]["network"]
    cross = network["tree" if algorithm == "ring" and group.per_node == 1 else algorithm][p]
    reported = nccl["reported_latency"].get(group.fabric, {}).get(group.architecture, 0.0)
    cross = max(cross + (group.fabric_latency + reported) * (2 if protocol == "Simple" else 1), 0.0)
    base = nccl["base_latency"][algorithm][p]
    if algorithm == "ring":
        if operation == "broadcast":
            return base + (cross if m > 1 else hop) + (m - 1) * cross * (protocol == "Simple")
        steps, crossings = n - 1, m - 1
        if operation == "all_reduce":
            steps, crossings = 2 * steps, 2 * crossings
        if m > 1:
            hop = max(hop, nccl["net_overhead"] * (3 if protocol == "Simple" else 1))
        return base + (steps - crossings) * hop + crossings * cross
    if algorithm == "tree":
        return base + 2 * ((n / m - 1) * hop + log2(m) * cross)
    if algorithm == "nvls":
        return hop + (cross if m > 1 else 0.0)
    if algorithm == "nvls_tree":
        return hop + 2 * log2(m) * cross
    if algorithm == "collnet":
        return 2 * (min(1, n / m - 1) * hop + (n / m - 1) * 0.4e-6) + cross
    return base + log2(m) * cross / nccl["pat_divisor"] + nccl["pat_rank_latency"] * n


def _bandwidth(operation: str, algorithm: str, protocol: str, group: Group) -> float:
    nccl = collective_constants()["nccl"]
    n, m, arch = group.ranks, group.nodes, group.architecture
    where = _scale_index(m)
    steps = 2 * (n - 1) if operation == "all_reduce" else n if operation == "broadcast" else n - 1
    pattern = {"ring": "ring", "pat": "ring", "tree": "tree"}.get(algorithm, "nvls")
    found = search_channels(group, pattern)
    count = found.count
    bus = count * (found.intra_speed if m <= 2 else found.speed)
    ll_max = nccl["ll_max"][arch][where]
    if algorithm == "ring":
        if protocol == "LL":
            bus = min(ll_max, nccl["ll_share"] * bus)
        elif protocol == "LL128":
            bus = min(nccl["ll128_share"] * bus, count * nccl["ring_ll128_channel"][arch])
        return bus * n / steps
    if algorithm == "pat":
        return bus * nccl["pat_share"] * n / steps
    if algorithm == "tree":
        bus = min(nccl["tree_share"] * bus, count * nccl["tree_channel"][arch][where])
        if protocol == "LL":
            bus = min(bus / nccl["tree_ll_divisor"], ll_max)
        elif protocol == "LL128":
            share = nccl["tree_ll128_share"][min(where, 1)]
            bus = min(bus * share, count * nccl["tree_ll128_channel"][arch][where])
        return bus / 2
    if algorithm == "collnet":
        return found.count * found.speed * nccl["collnet_share"][arch]
    ppn = group.per_node
    share = nccl["nvls_efficiency"][arch] * (count - 1) / count
    share *= 2 if operation == "all_reduce" else (ppn - 1) / ppn
    speed = found.intra_speed * share
    if algorithm == "nvls_tree":
        speed = min(speed, found.speed * (2 if m <= 2 else 1), nccl["nvls_tree_channel"][arch][where])
    bus = count * speed
    return bus * n / steps if operation == "all_reduce" else bus


def nccl_time(operation: str, algorithm: str, protocol: str, size: float, group: Group) -> float:
    """NCCL's estimate in seconds; infinite when the pair is not allowed."""
    latency, bandwidth = nccl_terms(operation, algorithm, protocol, group)
    if bandwidth <= 0:
        return float("inf")
    nccl = collective_constants()["nccl"]
    index = int(log2(max(size, 1) / 64)) if size > 64 else 0
    if algorithm == "tree" and index < 23:
        bandwidth *= nccl["tree_correction"][protocol][index]
    if algorithm == "ring" and protocol == "Simple" and operation == "all_reduce" and group.nodes > 1:
        plateau = nccl["plateau"]
        count = 2 * search_channels(group, "ring").count
        if size / (count * group.ranks) >= plateau["bytes_per_rank_channel"]:
            latency *= plateau[group.architecture]
    return latency + size / bandwidth


@lru_cache(maxsize=4096)
def _ladder(operation: str, group: Group, algorithm: str, protocol: str) -> tuple[tuple[str, str], ...]:
    """NCCL's choices at 1 B, 2 B, 4 B … 16 GiB, to where sweeps go."""
    return tuple(choose(operation, 2.0**power, group, algorithm, protocol) for power in range(35))


def candidates(operation: str, size: float, group: Group, algorithm: str, protocol: str) -> list[tuple[str, str]]:
    """The (algorithm, protocol) that NCCL would choose at this size, taken down to a power of two, or at a larger one.

    What is among them at a size is so at all smaller sizes: so the time of the fastest grows with size if that of each
    does. Empty when none is allowed.
    """
    ladder = _ladder(operation, group, algorithm, protocol)
    return [pair for pair in dict.fromkeys(ladder[min(int(log2(max(size, 1.0))), len(ladder) - 1) :]) if pair[0]]


NCCL_ALGORITHMS = ("ring", "tree", "nvls", "nvls_tree", "collnet", "pat")


def choose(operation: str, size: float, group: Group, algorithm: str, protocol: str) -> tuple[str, str]:
    """The (algorithm, protocol) of the smallest estimate among those asked for; ('', '') when none is allowed."""
    best, chosen = float("inf"), ("", "")
    for a in NCCL_ALGORITHMS if algorithm == "auto" else (algorithm,):
        for p in PROTOCOLS if protocol == "auto" else (protocol,):
            time = nccl_time(operation, a, p, size, group)
            if time < best:
                best, chosen = time, (a, p)
    return chosen
