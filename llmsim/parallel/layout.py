"""The rank grid: which rank is which tensor, context, data and pipeline part, and the groups they form.

`order` says which axis varies fastest over consecutive ranks; the default is Megatron-LM's (`tp-cp-ep-dp-pp`), which
keeps tensor parallelism inside a node and puts pipeline stages farthest apart. Expert parallelism is not an axis of
its own: it regroups the tp × cp × dp ranks of a stage (Megatron-Core's parallel folding). `etp` neighbours of a tensor
group share the matrices of each expert, `ep` of these hold different experts, and the rest are copies: so `ep` divides
`tp · cp · dp / etp`, and the product is tp · cp · dp · pp = ranks.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from llmsim.errors import ScenarioError, nearest

AXES = ("tp", "cp", "ep", "dp", "pp")
GRID_AXES = ("tp", "cp", "dp", "pp")
DEFAULT_ORDER = AXES
_EXPERT = ("ep", "edp")
_HYBRID = {"shard": "dp-cp", "replica": "dp-cp", "eshard": "edp", "ereplica": "edp"}  # parts of these groups
_REGROUPED = (*_EXPERT, *_HYBRID)  # groups inside the tp × cp × dp ranks of a stage


@dataclass(frozen=True)
class Layout:
    """Degrees of parallelism and the order of ranks. Raises `ScenarioError` when the degrees contradict each other.

    etp: tensor-parallel ranks that share an expert; 0 means all of tp.
    micro_batches: of one data-parallel rank in one iteration. shard: ranks that share one copy of a sharded state
    (HSDP) within a dp-cp group; 0 means all of them.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    cp: int = 1
    ep: int = 1
    etp: int = 0
    vpp: int = 1
    micro_batches: int = 1
    order: tuple[str, ...] = DEFAULT_ORDER
    shard: int = 0

    def __post_init__(self) -> None:
        for key in ("tp", "pp", "dp", "cp", "ep", "vpp", "micro_batches"):
            if getattr(self, key) < 1:
                raise ScenarioError(f"{key}: {getattr(self, key)} is too small; expected at least 1")
        if sorted(self.order) != sorted(AXES):
            raise ScenarioError(f"order: {list(self.order)} is not a permutation of {list(AXES)}")
        if not self.etp:
            object.__setattr__(self, "etp", self.tp)
        if self.tp % self.etp:
            raise ScenarioError(f"etp: {self.etp} does not divide tp = {self.tp}; expected a divisor")
        places = self.tp * self.cp * self.dp // self.etp
        if places % self.ep:
            raise ScenarioError(f"ep: {self.ep} does not divide tp × cp × dp / etp = {places}; expected a divisor")
        if not self.shard:
            object.__setattr__(self, "shard", self.dp * self.cp)
        if self.dp * self.cp % self.shard:
            raise ScenarioError(f"shard: {self.shard} does not divide dp × cp = {self.dp * self.cp}")
        replica, inner = self.experts_of_a_replica
        if not experts_divide(replica, inner):
            raise ScenarioError(
                f"shard: {self.shard} leaves {replica} places for experts in a replica, which {inner} ranks with "
                f"{'different experts' if _ep_is_inner(self) else 'copies of one'} do not divide evenly"
            )

    @property
    def ranks(self) -> int:
        """GPUs in all: tp · cp · dp · pp."""
        return self.tp * self.cp * self.dp * self.pp

    @property
    def edp(self) -> int:
        """Copies of each expert: tp · cp · dp / (etp · ep)."""
        return self.tp * self.cp * self.dp // (self.etp * self.ep)

    @property
    def experts_of_a_replica(self) -> tuple[int, int]:
        """Places for experts in one replica of a sharded state, and how many neighbours differ (or are copies)."""
        return expert_places(self.tp, self.shard, self.etp, self.ep, self.edp, self.order)

    @property
    def expert_shard(self) -> int:
        """Copies of an expert inside one replica, over which its state is sharded; 1 where its experts span replicas.

        torchtitan, distributed/parallel_dims.py: dp_shard · cp · tp / ep.
        """
        replica, inner = self.experts_of_a_replica
        if _ep_is_inner(self):
            return max(1, replica // inner)
        return min(replica, inner)

    @property
    def stages(self) -> int:
        """Virtual pipeline stages: pp · vpp."""
        return self.pp * self.vpp

    def degree(self, group: str) -> int:
        """Ranks in each group of this kind, as `groups` would give them."""
        if group in _REGROUPED:
            sizes = {"ep": self.ep, "edp": self.edp, "shard": self.shard, "eshard": self.expert_shard}
            sizes |= {"replica": self.dp * self.cp // self.shard, "ereplica": self.edp // self.expert_shard}
            return sizes[group]
        return prod(getattr(self, axis) for axis in _axes(group))

    def axis_index(self, axis: str) -> np.ndarray:
        """int[ranks], read-only: the coordinate of each rank along tp, cp, dp, pp, ep or edp."""
        return _axis_index(self, axis)

    def coordinates(self, rank: int) -> dict[str, int]:
        """The coordinate of one rank along every axis, ep and edp included."""
        if not 0 <= rank < self.ranks:
            raise ScenarioError(f"rank {rank} does not exist; expected 0 to {self.ranks - 1}")
        result, rest = {}, rank
        for axis in _grid_order(self):
            rest, result[axis] = divmod(rest, getattr(self, axis))
        return result | {axis: int(_axis_index(self, axis)[rank]) for axis in _EXPERT}

    def groups(self, group: str) -> np.ndarray:
        """int[n_groups, size], read-only: the ranks of every group of a kind; rows and members as Megatron orders them.

        group: tp, cp, dp, pp, several joined by `-` (`dp-cp` reduces gradients, `tp-pp` holds one copy of the model),
        `ep` (experts spread), `edp` (copies of one expert), `shard` and `replica` (HSDP), `eshard` and `ereplica`
        (the same of an expert's copies).
        """
        return _groups(self, group)


def experts_divide(places: int, inner: int) -> bool:
    """Whether neighbours that differ (or are copies) fill the places for experts of a replica, or replicas them."""
    return places % inner == 0 or inner % places == 0


def expert_places(tp: int, shard: int, etp: int, ep: int, copies: int, order: tuple[str, ...]) -> tuple[int, int]:
    """Places for experts in one replica of a sharded state, and how many neighbours differ (or are copies)."""
    return tp * shard // etp, ep if order.index("ep") < order.index("dp") else copies


def _axes(group: str) -> tuple[str, ...]:
    axes = tuple(group.split("-"))
    for axis in axes:
        if axis not in GRID_AXES:
            known = (*GRID_AXES, *_REGROUPED)
            hint = nearest(axis, known)
            raise ScenarioError(f"group {group!r} is unknown{hint}; known: {', '.join(known)} and a-b")
    return axes


def _grid_order(layout: Layout) -> tuple[str, ...]:
    """tp, cp, dp and pp, fastest first."""
    return tuple(axis for axis in layout.order if axis != "ep")


def _ep_is_inner(layout: Layout) -> bool:
    """Whether neighbours hold different experts (Megatron) or copies of the same one."""
    return layout.order.index("ep") < layout.order.index("dp")


def _flat_data(layout: Layout, index: dict):
    """Position within the cp × dp group, the faster of the two axes first; works on numbers and arrays."""
    first, second = (axis for axis in _grid_order(layout) if axis in ("cp", "dp"))
    return index[first] + getattr(layout, first) * index[second]


@lru_cache(maxsize=1024)
def _axis_index(layout: Layout, axis: str) -> np.ndarray:
    if axis in _EXPERT:
        flat = _flat_data(layout, {name: _axis_index(layout, name) for name in ("cp", "dp")})
        flat = (_axis_index(layout, "tp") + layout.tp * flat) // layout.etp
        inner, outer = _EXPERT if _ep_is_inner(layout) else _EXPERT[::-1]
        size = getattr(layout, inner)
        return _frozen({inner: flat % size, outer: flat // size}[axis])
    _axes(axis)
    before = _grid_order(layout)[: _grid_order(layout).index(axis)]
    stride = prod(getattr(layout, name) for name in before)
    return _frozen(np.arange(layout.ranks) // stride % getattr(layout, axis))


@lru_cache(maxsize=1024)
def _groups(layout: Layout, group: str) -> np.ndarray:
    if group in _EXPERT:
        other = _EXPERT[group == "ep"]
        keys = (group, other, "tp", "pp")  # the last sorts first
        within = {"tp": _axis_index(layout, "tp") % layout.etp}
        order = np.lexsort([within[key] if key in within else _axis_index(layout, key) for key in keys])
        return _by_first(order.reshape(-1, layout.degree(group)))
    if group in _HYBRID:
        rows = _groups(layout, _HYBRID[group])
        together = "shard" if _HYBRID[group] == "dp-cp" else "eshard"
        blocks = rows.reshape(len(rows), -1, layout.degree(together))
        members = blocks if group == together else blocks.transpose(0, 2, 1)
        return _by_first(members.reshape(-1, members.shape[2]))
    wanted = _axes(group)
    slowest_first = _grid_order(layout)[::-1]
    grid = np.arange(layout.ranks).reshape([getattr(layout, axis) for axis in slowest_first])
    others = [i for i, axis in enumerate(slowest_first) if axis not in wanted]
    inside = [i for i, axis in enumerate(slowest_first) if axis in wanted]
    return _frozen(grid.transpose(others + inside).reshape(-1, layout.degree(group)))


def _by_first(rows: np.ndarray) -> np.ndarray:
    return _frozen(rows[np.argsort(rows[:, 0], kind="stable")])


def _frozen(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array
