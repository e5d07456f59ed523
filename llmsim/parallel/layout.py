"""The rank grid: which rank is which tensor, context, data and pipeline part, and the groups they form.

`order` says which axis varies fastest over consecutive ranks; the default is Megatron-LM's (`tp-cp-ep-dp-pp`), which
keeps tensor parallelism inside a node and puts pipeline stages farthest apart. Expert parallelism is not an axis of
its own: it regroups the cp × dp ranks that share a tensor part and a stage, so `ep` divides `cp · dp` and the product
is tp · cp · dp · pp = ranks.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from llmsim.errors import ScenarioError, nearest

AXES = ("tp", "cp", "ep", "dp", "pp")
GRID_AXES = ("tp", "cp", "dp", "pp")
DEFAULT_ORDER = AXES
_REGROUPED = ("ep", "edp", "shard", "replica")  # groups inside the cp × dp ranks


@dataclass(frozen=True)
class Layout:
    """Degrees of parallelism and the order of ranks. Raises `ScenarioError` when the degrees contradict each other.

    micro_batches: of one data-parallel rank in one iteration. shard: ranks that share one copy of a sharded state
    (HSDP) within a dp-cp group; 0 means all of them.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    cp: int = 1
    ep: int = 1
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
        if self.dp * self.cp % self.ep:
            raise ScenarioError(f"ep: {self.ep} does not divide dp × cp = {self.dp * self.cp}; expected a divisor")
        if not self.shard:
            object.__setattr__(self, "shard", self.dp * self.cp)
        if self.dp * self.cp % self.shard:
            raise ScenarioError(f"shard: {self.shard} does not divide dp × cp = {self.dp * self.cp}")

    @property
    def ranks(self) -> int:
        """GPUs in all: tp · cp · dp · pp."""
        return self.tp * self.cp * self.dp * self.pp

    @property
    def edp(self) -> int:
        """Copies of each expert: dp · cp / ep."""
        return self.dp * self.cp // self.ep

    @property
    def stages(self) -> int:
        """Virtual pipeline stages: pp · vpp."""
        return self.pp * self.vpp

    def degree(self, group: str) -> int:
        """Ranks in each group of this kind, as `groups` would give them."""
        if group in _REGROUPED:
            data = self.dp * self.cp
            sizes = {"ep": self.ep, "edp": self.edp, "shard": self.shard, "replica": data // self.shard}
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
        flat = _flat_data(self, result)
        ep_first = _ep_is_inner(self)
        result["ep"] = flat % self.ep if ep_first else flat // self.edp
        result["edp"] = flat // self.ep if ep_first else flat % self.edp
        return result

    def groups(self, group: str) -> np.ndarray:
        """int[n_groups, size], read-only: the ranks of every group of a kind; rows and members as Megatron orders them.

        group: tp, cp, dp, pp, several joined by `-` (`dp-cp` reduces gradients, `tp-pp` holds one copy of the model),
        `ep` (experts spread), `edp` (copies of one expert), `shard` and `replica` (HSDP).
        """
        return _groups(self, group)


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
    """Whether neighbours in a cp × dp group hold different experts (Megatron) or copies of the same one."""
    return layout.order.index("ep") < layout.order.index("dp")


def _flat_data(layout: Layout, index: dict):
    """Position within the cp × dp group, the faster of the two axes first; works on numbers and arrays."""
    first, second = (axis for axis in _grid_order(layout) if axis in ("cp", "dp"))
    return index[first] + getattr(layout, first) * index[second]


@lru_cache(maxsize=1024)
def _axis_index(layout: Layout, axis: str) -> np.ndarray:
    if axis in ("ep", "edp"):
        flat = _flat_data(layout, {name: _axis_index(layout, name) for name in ("cp", "dp")})
        inner, outer = ("ep", "edp") if _ep_is_inner(layout) else ("edp", "ep")
        size = getattr(layout, inner)
        return _frozen({inner: flat % size, outer: flat // size}[axis])
    _axes(axis)
    before = _grid_order(layout)[: _grid_order(layout).index(axis)]
    stride = prod(getattr(layout, name) for name in before)
    return _frozen(np.arange(layout.ranks) // stride % getattr(layout, axis))


@lru_cache(maxsize=1024)
def _groups(layout: Layout, group: str) -> np.ndarray:
    if group in _REGROUPED:
        rows = _groups(layout, "dp-cp")
        if group in ("ep", "edp"):
            inner_group = "ep" if _ep_is_inner(layout) else "edp"
            inner, wants_inner = layout.degree(inner_group), group == inner_group
        else:
            inner, wants_inner = layout.shard, group == "shard"
        blocks = rows.reshape(len(rows), -1, inner)
        members = blocks if wants_inner else blocks.transpose(0, 2, 1)
        members = members.reshape(-1, members.shape[2])
        return _frozen(members[np.argsort(members[:, 0], kind="stable")])
    wanted = _axes(group)
    slowest_first = _grid_order(layout)[::-1]
    grid = np.arange(layout.ranks).reshape([getattr(layout, axis) for axis in slowest_first])
    others = [i for i, axis in enumerate(slowest_first) if axis not in wanted]
    inside = [i for i, axis in enumerate(slowest_first) if axis in wanted]
    return _frozen(grid.transpose(others + inside).reshape(-1, layout.degree(group)))


def _frozen(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array
