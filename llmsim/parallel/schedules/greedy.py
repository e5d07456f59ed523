"""One split-backward order, chosen by playing the pipeline: each rank takes the op that fits its gap.

The idea of the Zero Bubble paper's automatic scheduling (Qi et al. 2024, arXiv 2401.10241, section 3.1): keep
forwards in flight up to the memory limit, then alternate forward and backward, and put weight gradients into
gaps that are long enough, into the end, and wherever memory has to be freed.
"""

from dataclasses import dataclass
from heapq import heappop, heappush

from llmsim.parallel.schedules.order import Orders, freeze

NEVER = float("inf")


@dataclass(frozen=True)
class Costs:
    """Times and memory of each rank, lists of length p.

    held: activations in flight until B (M_B) and left of them until W (M_W), in the limit's unit.
    """

    forward: list[float]
    backward: list[float]
    weight: list[float]
    comm: list[float]
    limit: list[float]
    held_forward: float = 1.0
    held_weight: float = 1.0

    def room(self, rank: int, forwards: int, backwards: int, weights: int) -> bool:
        """Whether one more forward fits after these numbers of ops."""
        held = (forwards + 1 - backwards) * self.held_forward + (backwards - weights) * self.held_weight
        return held <= self.limit[rank] * (1 + 1e-12)


@dataclass(frozen=True)
class Policy:
    """How a rank chooses.

    warm_up[rank]: forwards ahead of backwards that it aims for. patience: a gap is filled with W when it is at
    least this part of W long (0: always, 1: only when W fits).
    """

    warm_up: tuple[int, ...]
    patience: float = 1.0


def greedy_orders(p: int, m: int, costs: Costs, policy: Policy) -> Orders:
    """Play the ranks in time; each decides among what is ready when it is free."""
    ranks = [_Rank(r, p, m, costs, policy) for r in range(p)]
    ranks[0].arrivals["F"] = [0.0] * m
    agenda = [(0.0, r) for r in range(p)]
    while agenda:
        now, r = heappop(agenda)
        rank = ranks[r]
        if now < rank.free:
            continue
        kind, when = rank.decide(now)
        if kind is None:
            if when < NEVER:
                heappush(agenda, (when, r))
            continue
        end = rank.take(kind, now)
        heappush(agenda, (end, r))
        target = {"F": r + 1, "B": r - 1}.get(kind)
        if kind == "F" and r == p - 1:
            rank.arrivals["B"].append(end)
        elif target is not None and 0 <= target < p:
            ranks[target].arrivals[kind].append(end + costs.comm[r])
            heappush(agenda, (max(ranks[target].free, now), target))
    return freeze(rank.ops for rank in ranks)


class _Rank:
    """What one rank has done, and when its next inputs arrive as far as that is known."""

    def __init__(self, r: int, p: int, m: int, costs: Costs, policy: Policy) -> None:
        self.r, self.m, self.costs, self.policy = r, m, costs, policy
        self.seconds = {"F": costs.forward[r], "B": costs.backward[r], "W": costs.weight[r]}
        self.aim = policy.warm_up[r] + 1
        self.done = {"F": 0, "B": 0, "W": 0}
        self.arrivals: dict[str, list[float]] = {"F": [], "B": []}
        self.free = 0.0
        self.last = "F"
        self.ops: list[tuple] = []

    def arrival(self, kind: str) -> float:
        known, k = self.arrivals[kind], self.done[kind]
        return known[k] if k < len(known) else NEVER

    def decide(self, now: float) -> tuple[str | None, float]:
        """The kind of op to start now, or None and when to look again."""
        done, m = self.done, self.m
        forward = self.arrival("F") if done["F"] < m else NEVER
        backward = self.arrival("B") if done["B"] < done["F"] else NEVER
        pending = done["W"] < done["B"]
        room = self.costs.room(self.r, done["F"], done["B"], done["W"])
        wanted = done["F"] - done["B"] < self.aim
        if wanted and forward <= now:
            if room:
                return "F", now
            # Memory is all that the forward lacks, and a weight gradient frees some.
            if pending and (backward > now or self.last == "B"):
                return "W", now
        if backward <= now:
            return "B", now
        following = min(forward if room and wanted else NEVER, backward)
        if pending and following - now >= self.policy.patience * self.seconds["W"]:
            return "W", now
        return None, following

    def take(self, kind: str, now: float) -> float:
        self.ops.append((kind, 0, self.r, self.done[kind]))
        self.done[kind] += 1
        self.last = kind
        self.free = now + self.seconds[kind]
        return self.free
