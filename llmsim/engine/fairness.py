"""Max-min fair sharing of resources among activities (progressive filling).

Bertsekas & Gallager, Data Networks, 2nd ed., section 6.5.2, extended to activities that use several resources in
fixed proportions: all speeds rise together, each at its own pace, until a resource is full; what crosses it is
frozen, the others rise on.
"""

from collections.abc import Mapping, Sequence

_SAME = 1e-12
NEARLY = 1e-9  # relative difference within which rounding decides which of several resources is full first


def max_min_speeds(
    demands: Sequence[Sequence[tuple[int, float]]],
    paces: Sequence[float],
    capacity: Mapping[int, float] | Sequence[float],
) -> list[float]:
    """Speeds in 0..1 of activities that at speed 1 use `demands[i]` = ((resource, amount), ...).

    No resource is oversubscribed, and a speed below 1 cannot be raised without lowering one that, over its pace, is no
    higher: each activity at speed < 1 has a full resource on which it is among the highest.
    """
    asked: dict[int, float] = {}
    for needs in demands:
        for resource, amount in needs:
            asked[resource] = asked.get(resource, 0.0) + amount
    # A resource that has room for all at full speed holds nobody back.
    left = {resource: capacity[resource] for resource, amount in asked.items() if amount > capacity[resource]}
    return fill(demands, paces, left)[0]


def fill(
    demands: Sequence[Sequence[tuple[int, float]]],
    paces: Sequence[float],
    left: Mapping[int, float],
) -> tuple[list[float], list[set[int]]]:
    """Speeds by progressive filling, and for each activity below 1 the resources that were full when it froze.

    left: what there is for these activities of each resource that can hold them back.
    """
    rest = dict(left)  # what those that have stopped leave
    rising: dict[int, dict[int, float]] = {resource: {} for resource in rest}  # pace × amount of those that still rise
    for i, needs in enumerate(demands):
        pace = paces[i]
        for resource, amount in needs:
            if resource in rest and amount > 0:
                takers = rising[resource]
                takers[i] = takers.get(i, 0.0) + pace * amount
    slopes = {resource: sum(takers.values()) for resource, takers in rising.items() if takers}
    speeds, frozen = [0.0] * len(demands), [set() for _ in demands]
    active = dict.fromkeys(range(len(demands)))
    while active:
        # All that still rise are at pace × level; the next to stop are those at full speed or on a full resource.
        full_at = {resource: max(rest[resource], 0.0) / slope for resource, slope in slopes.items()}
        level = min([1.0 / max(paces[i] for i in active), *full_at.values()])
        stopping = {i: None for i in active if paces[i] * level >= 1.0 - _SAME}
        for i in stopping:
            speeds[i] = 1.0
        for resource, when in full_at.items():
            if when <= level * (1.0 + _SAME):
                for i in rising[resource]:
                    if i not in stopping:
                        stopping[i] = None
                        speeds[i] = paces[i] * level
        nearly = {resource for resource, when in full_at.items() if when <= level * (1.0 + NEARLY)}
        for i in stopping:
            del active[i]
            for resource, _ in demands[i]:
                if resource in slopes and i in rising[resource]:
                    if speeds[i] < 1.0 and resource in nearly:
                        frozen[i].add(resource)
                    rest[resource] -= rising[resource].pop(i) / paces[i] * speeds[i]
        for resource in {resource for i in stopping for resource, _ in demands[i] if resource in slopes}:
            if rising[resource]:
                slopes[resource] = sum(rising[resource].values())
            else:
                del slopes[resource]
    return speeds, frozen
