"""`detail: block`: one event for a whole pass, its time measured by playing the pass once, kernel by kernel.

Inside the pass contention is exact, since it was played; towards the outside the block draws its average demand.
"""

from dataclasses import dataclass

import numpy as np

from llmsim.engine.plan import Item, Lane, Part, Plan
from llmsim.engine.player import play


@dataclass(frozen=True, slots=True)
class Measured:
    """One pass alone: its duration, average demand on each resource, and the rows of each lane."""

    seconds: float
    demands: tuple[tuple[int, float], ...]
    rows: dict[str, np.ndarray]  # lane -> (ops, 4): label, tag, start, end

    def part(self) -> Part:
        return Part(1, 0.0, self.seconds, self.demands)


def measure(capacities: list[float], lanes: dict[str, list[Item]], signals: int) -> Measured:
    """Play `lanes` alone from time 0. None of their ops may have a meeting with other classes."""
    plan = Plan(capacities=capacities, signals=signals)
    plan.lanes = [Lane(0, name, items) for name, items in lanes.items()]
    played = play(plan, steps=False)
    used: dict[int, float] = {}
    for items in lanes.values():
        for item in items:
            for op in item.fragment.ops:
                for part in op.parts:
                    for resource, amount in part.demands:
                        used[resource] = used.get(resource, 0.0) + amount * part.seconds * part.repeat
    seconds = played.end
    demands = tuple((r, min(amount / seconds, capacities[r])) for r, amount in sorted(used.items())) if seconds else ()
    return Measured(seconds, demands, dict(zip(lanes, played.rows)))
