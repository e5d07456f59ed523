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


def alone(needs: Sequence[tuple[int, float]], left: Mapping[int, float]) -> tuple[float, list[int]]:
    """The same as `fill` for one activity: its speed, and the resources that are full then if it is below 1."""
    speed, shares = 1.0, []
    for resource, amount in needs:
        if amount > 0:
            share = max(left[resource], 0.0) / amount
            shares.append((resource, share))
            if share < speed:
                speed = share
    if speed >= 1.0 - _SAME:
        return 1.0, []
    return speed, [resource for resource, share in shares if share <= speed * (1.0 + NEARLY)]


def fill(
    demands: Sequence[Sequence[tuple[int, float]]],
    paces: Sequence[float],
    left: Mapping[int, float],
) -> tuple[list[float], list[set[int]]]:
    """Speeds by progressive filling, and for each activity below 1 the resources that were full when it froze.

    left: what there is for these activities of each resource that can hold them back.
    """
    rest = dict(left)  # what those that have stopped leave
    takers: dict[int, list[tuple[int, float]]] = {resource: [] for resource in rest}  # that still rise, pace × amount
    slopes: dict[int, float] = {}  # the sums of those
    for i, needs in enumerate(demands):
        pace = paces[i]
        for resource, amount in needs:
            if resource in rest and amount > 0:
                share = pace * amount
                takers[resource].append((i, share))
                slopes[resource] = slopes.get(resource, 0.0) + share
    speeds, frozen = [0.0] * len(demands), [set() for _ in demands]
    active = dict.fromkeys(range(len(demands)))
    while active:
        # All that still rise are at pace × level; the next to stop are those at full speed or on a full resource.
        level, full_at = 1.0 / max([paces[i] for i in active]), {}
        for resource, slope in slopes.items():
            full_at[resource] = when = max(rest[resource], 0.0) / slope
            level = min(level, when)
        stopping = {i: None for i in active if paces[i] * level >= 1.0 - _SAME}
        for i in stopping:
            speeds[i] = 1.0
        nearly = [resource for resource, when in full_at.items() if when <= level * (1.0 + NEARLY)]
        for resource in nearly:
            if full_at[resource] <= level * (1.0 + _SAME):
                for i, _ in takers[resource]:
                    if i not in stopping:
                        stopping[i] = None
                        speeds[i] = paces[i] * level
        for resource in nearly:
            for i, _ in takers[resource]:
                if i in stopping and speeds[i] < 1.0:
                    frozen[i].add(resource)
        if len(stopping) == len(active):
            break
        touched = {}
        for i in stopping:
            del active[i]
            for resource, amount in demands[i]:
                if resource in slopes:
                    rest[resource] -= amount * speeds[i]
                    touched[resource] = None
        for resource in touched:
            takers[resource] = [taker for taker in takers[resource] if taker[0] in active]
            if takers[resource]:
                slopes[resource] = sum([share for _, share in takers[resource]])
            else:
                del slopes[resource]
    return speeds, frozen
