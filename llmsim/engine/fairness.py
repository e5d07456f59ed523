"""Max-min fair sharing of resources among activities (progressive filling).

Bertsekas & Gallager, Data Networks, 2nd ed., section 6.5.2, extended to activities that use several resources in
fixed proportions: all speeds rise together, each at its own pace, until a resource is full; what crosses it is
frozen, the others rise on.
"""

from collections.abc import Mapping, Sequence

_FULL = 1e-12


def max_min_speeds(
    demands: Sequence[Sequence[tuple[int, float]]],
    paces: Sequence[float],
    capacity: Mapping[int, float] | Sequence[float],
) -> list[float]:
    """Speeds in 0..1 of activities that at speed 1 use `demands[i]` = ((resource, amount), ...).

    No resource is oversubscribed, and a speed below 1 cannot be raised without lowering one that, over its pace, is no
    higher: each activity at speed < 1 has a full resource on which it is among the highest.
    """
    count = len(demands)
    speeds = [0.0] * count
    pace = list(paces)
    asked: dict[int, float] = {}
    for i, needs in enumerate(demands):
        for resource, amount in needs:
            asked[resource] = asked.get(resource, 0.0) + amount
            if amount > 0 and capacity[resource] <= 0:
                pace[i] = 0.0  # it cannot move at all
    # A resource that has room for all at full speed holds nobody back.
    left = {resource: capacity[resource] for resource, amount in asked.items() if amount > capacity[resource]}
    demands = [[need for need in needs if need[0] in left and need[1] > 0] for needs in demands]
    active = [i for i in range(count) if pace[i] > 0]
    while active:
        rising: dict[int, float] = {}
        for i in active:
            for resource, amount in demands[i]:
                rising[resource] = rising.get(resource, 0.0) + amount * pace[i]
        step = min((1.0 - speeds[i]) / pace[i] for i in active)
        for resource, slope in rising.items():
            step = min(step, max(left[resource], 0.0) / slope)
        full = set()
        for resource, slope in rising.items():
            left[resource] -= slope * step
            if left[resource] <= _FULL * max(capacity[resource], 1e-300):
                full.add(resource)
        still = []
        for i in active:
            speeds[i] += pace[i] * step
            if speeds[i] >= 1.0 - 1e-12:
                speeds[i] = 1.0
            elif not any(resource in full for resource, _ in demands[i]):
                still.append(i)
        if len(still) == len(active):  # nothing froze: numerical floor, the speeds are final
            break
        active = still
    return speeds
