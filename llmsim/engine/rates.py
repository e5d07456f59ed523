"""How fast an activity may go alone: its pace by its largest share of a resource, and the rate that all allow."""

from collections.abc import Iterable

from llmsim.engine.plan import Part

COMMUNICATION_WEIGHT = 16.0  # a communication kernel holds its SMs: thread blocks are not preempted


def pace_of(shares: Iterable[float]) -> float:
    """The pace of an activity whose single flow, or rank, needs these shares of its resources."""
    tightest = max(shares, default=0.0)
    return 1.0 / tightest if 0.0 < tightest < float("inf") else 1.0


def feasible(part: Part, capacities: list[float]) -> Part:
    """The same work at a full rate that the resources allow one activity alone (slow GPUs, slow links, full NICs)."""
    speed = min((capacities[r] / amount for r, amount in part.demands if amount > capacities[r]), default=1.0)
    if speed >= 1.0 or speed <= 0.0:
        return part
    demands = tuple((resource, amount * speed) for resource, amount in part.demands)
    return part._replace(seconds=part.seconds / speed, demands=demands, pace=part.pace / speed)
