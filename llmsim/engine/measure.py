"""`detail: block`: one event for a whole pass, its time measured by playing the pass once, kernel by kernel.

Inside the pass, and between passes played beside each other, contention is exact, since it was played; towards the
outside a block draws its average demand.
"""

from dataclasses import dataclass

import numpy as np

from llmsim.engine.plan import Item, Lane, Plan
from llmsim.engine.player import play


@dataclass(frozen=True, slots=True)
class Measured:
    """Passes played from time 0, told apart by their tags: what each used, and the rows of each lane."""

    used: dict[int, dict[int, float]]  # tag -> resource -> amount × seconds at full rate
    rows: dict[str, np.ndarray]  # lane -> float (ops, 4): label, tag, start (s), end (s)

    def end(self, tag: int) -> float:
        """When the last op of this tag is over (s); 0 for a pass without ops."""
        return max((rows[rows[:, 1] == tag, 3].max(initial=0.0) for rows in self.rows.values()), default=0.0)


def measure(capacities: list[float], lanes: dict[str, list[Item]], signals: int) -> Measured:
    """Play `lanes` alone from time 0. None of their ops may have a meeting with other classes."""
    plan = Plan(capacities=capacities, signals=signals)
    plan.lanes = [Lane(0, name, items) for name, items in lanes.items()]
    played = play(plan, steps=False)
    used: dict[int, dict[int, float]] = {}
    for items in lanes.values():
        for item in items:
            mine = used.setdefault(item.tag, {})
            for op in item.fragment.ops:
                for part in op.parts:
                    for resource, amount in part.demands:
                        mine[resource] = mine.get(resource, 0.0) + amount * part.seconds * part.repeat
    return Measured(used, dict(zip(lanes, played.rows)))
