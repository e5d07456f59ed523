"""Who shares what: loads of resources, and max-min fair speeds that are renewed where something changed.

Speeds are max-min fair exactly when no resource is oversubscribed and each activity below full speed has a full
resource on which no other one is, over its pace, faster (Bertsekas & Gallager, section 6.5.2). So it is enough to
choose speeds for the activities at the resources that changed, with all others as they are, and to take in those
others that lose their reason or that stand in the way of one; in the end every activity has its reason.
"""

from collections.abc import Collection, Iterable

from llmsim.engine.activity import Activity
from llmsim.engine.fairness import NEARLY, alone, fill

_SLACK = 1.0 + 1e-7  # a resource counts as oversubscribed beyond this, so that rounding does not


NONE = -1  # no resource


class Sharing:
    """Resources and their users. `load` is what all activities ask for at full speed; above `limit`, they share."""

    def __init__(self, capacities: Iterable[float]) -> None:
        self.capacity = list(capacities)
        self.limit = [capacity * _SLACK for capacity in self.capacity]
        self.load = [0.0] * len(self.capacity)
        self.users: list[dict[Activity, float]] = [{} for _ in self.capacity]  # amounts at full speed, now

    def change(self, resource: int, capacity: float) -> None:
        """From now on the resource has another capacity."""
        self.capacity[resource] = capacity
        self.limit[resource] = capacity * _SLACK

    def renew(self, resources: Iterable[int], begun: dict[Activity, None]) -> None:
        """Set the speeds of all activities that a change of these resources concerns.

        begun: activities that have no speed yet; those that have ended since are left out.
        """
        chosen = {player: None for player in begun if player.part is not None}
        for resource in resources:
            users, limit = self.users[resource], self.limit[resource]
            # What this resource holds back; where more is asked for than there is, also what nothing holds back yet.
            crowded, taken = self.load[resource] > limit, 0.0
            for player, amount in users.items():
                if player.reason == resource or (crowded and player.reason == NONE):
                    chosen[player] = None
                else:
                    taken += amount * player.speed
            if taken > limit:  # its capacity has shrunk
                chosen |= dict.fromkeys(users)
        while chosen:
            new, reasons, more = self._shared(chosen)
            if not more:
                for player, resource in reasons.items():
                    player.reason = resource
                for player, speed in new.items():
                    player.set_speed(speed)
                return
            chosen |= more

    def _contested(self, player: Activity) -> list[tuple[int, float]]:
        """Its demands on resources on which more is asked for than there is."""
        load, limit, needs = self.load, self.limit, []
        for need in player.part.demands:
            resource = need[0]
            if load[resource] > limit[resource]:
                needs.append(need)
        return needs

    def _shared(
        self, chosen: dict[Activity, None]
    ) -> tuple[dict[Activity, float], dict[Activity, int], dict[Activity, None]]:
        """Speeds that are new among the chosen, beside all others as they are, reasons, and the others that must be
        chosen too."""
        demands = {player: self._contested(player) for player in chosen}
        left, beside = self._left_by_others(demands)
        speeds, frozen = self._filled(demands, left, beside)
        new: dict[Activity, float] = {}
        reasons: dict[Activity, int] = {}
        more: dict[Activity, None] = {}
        for player, speed, full in zip(chosen, speeds, frozen):
            before = player.speed
            if abs(speed - before) <= NEARLY * speed:
                speed = before
            else:
                new[player] = speed
            reasons[player] = NONE
            if speed < 1.0:
                height, above = speed / player.part.pace * (1 + NEARLY), []
                for resource in full:
                    faster = [p for p in beside[resource] if p.speed / p.part.pace > height]
                    if not faster:
                        reasons[player] = resource
                        break
                    above += faster
                else:
                    more |= dict.fromkeys(above)
        for player in new:
            for resource, _ in demands[player]:
                for other in beside[resource]:
                    if other.reason == resource and other not in more and other not in reasons:
                        found = self._reason(other, new)
                        if found == NONE:
                            more[other] = None
                        else:
                            reasons[other] = found
        return new, reasons, more

    def _filled(
        self,
        demands: dict[Activity, list[tuple[int, float]]],
        left: dict[int, float],
        beside: dict[int, list[Activity]],
    ) -> tuple[list[float], list[Collection[int]]]:
        """As `fill`; those that meet no other of the chosen, most of them, are not worth its trouble."""
        single = {resource for resource, others in beside.items() if len(others) + 1 == len(self.users[resource])}
        speeds: list[float] = []
        frozen: list[Collection[int]] = []
        together = []
        for index, needs in enumerate(demands.values()):
            speed, full = 1.0, ()
            for resource, _ in needs:
                if resource not in single:
                    together.append(index)
                    break
            else:
                if needs:
                    speed, full = alone(needs, left)
            speeds.append(speed)
            frozen.append(full)
        if together:
            needs, players = list(demands.values()), list(demands)
            found = fill([needs[i] for i in together], [players[i].part.pace for i in together], left)
            for index, speed, full in zip(together, *found):
                speeds[index], frozen[index] = speed, full
        return speeds, frozen

    def _left_by_others(
        self, demands: dict[Activity, list[tuple[int, float]]]
    ) -> tuple[dict[int, float], dict[int, list[Activity]]]:
        """Of each resource that the chosen ones demand: what its other users leave, and who they are."""
        left: dict[int, float] = {}
        beside: dict[int, list[Activity]] = {}
        for needs in demands.values():
            for resource, _ in needs:
                if resource not in left:
                    rest, others = self.capacity[resource], []
                    for other, amount in self.users[resource].items():
                        if other not in demands:
                            rest -= amount * other.speed
                            others.append(other)
                    left[resource], beside[resource] = rest, others
        return left, beside

    def _reason(self, player: Activity, new: dict[Activity, float]) -> int:
        """A resource that holds the activity back, its old one if that still does; NONE where there is none."""
        if self._is_reason(player.reason, player, new):
            return player.reason
        demands = self._contested(player)
        return next((resource for resource, _ in demands if self._is_reason(resource, player, new)), NONE)

    def _is_reason(self, resource: int, player: Activity, new: dict[Activity, float]) -> bool:
        """Whether the resource is full and no activity on it is, over its pace, faster; new: speeds about to be set."""
        if self.load[resource] <= self.limit[resource]:
            return False
        taken, height = 0.0, player.speed / player.part.pace * (1 + NEARLY)
        for other, amount in self.users[resource].items():
            speed = new.get(other, other.speed)
            if speed / other.part.pace > height:
                return False
            taken += amount * speed
        return taken >= self.capacity[resource] * (1 - NEARLY)
