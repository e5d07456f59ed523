"""A pipeline schedule as data: for each rank the list of its ops, and nothing about time.

An op is a tuple `(kind, direction, stage, micro_batch)`; kind is F (forward), B (input gradient), W (weight
gradient) or BW (both gradients as one op). An overlapped block is one op for two micro-batches: `("FB", d_f,
s_f, i_f, d_b, s_b, i_b)`, a forward next to a full backward. `stage` is a virtual stage, 0 holding the first
layers; `direction` is 0, or 0 and 1 in schedules that feed micro-batches from both ends; `micro_batch` counts
from 0 within its direction.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

Op = tuple
Part = tuple[str, int, int, int]
Orders = tuple[tuple[Op, ...], ...]
Placement = tuple[tuple[int, ...], ...]

KINDS = ("F", "B", "W", "BW", "FB")


@dataclass(frozen=True)
class Schedule:
    """Who does what in which order.

    stages: pipeline ranks p. micro_batches: m, over all directions. orders[rank]: its ops, played strictly in
    order. placement[direction][virtual stage]: the rank that holds it. parameter_copies: how many ranks hold
    each layer (2 when both directions go through the whole model).
    """

    name: str
    stages: int
    micro_batches: int
    orders: Orders
    placement: Placement
    parameter_copies: int = 1

    @property
    def directions(self) -> int:
        """1, or 2 when micro-batches enter at both ends."""
        return len(self.placement)

    @property
    def micro_batches_of_direction(self) -> int:
        """Micro-batches that enter at each end."""
        return self.micro_batches // self.directions

    @property
    def virtual_stages(self) -> int:
        """Parts the model is cut into; the length of a per-stage list of times."""
        return len(self.placement[0])

    @property
    def chunks(self) -> int:
        """Parts of the model a rank holds in one direction: virtual stages over ranks."""
        return -(-self.virtual_stages // self.stages)

    @cached_property
    def split_backward(self) -> bool:
        """Whether some input and weight gradients are ops of their own."""
        return any(op[0] in ("B", "W") for ops in self.orders for op in ops)

    @cached_property
    def overlapped(self) -> bool:
        """Whether some forwards and backwards run side by side in one block."""
        return any(op[0] == "FB" for ops in self.orders for op in ops)

    def rank_of(self, direction: int, stage: int) -> int:
        """The pipeline rank that holds a virtual stage."""
        return self.placement[direction][stage]

    def chunk_of(self, direction: int, stage: int) -> int:
        """Which of its rank's model chunks a virtual stage is, from 0 in the order of the forward pass."""
        return self._chunks[direction][stage]

    def dependencies(self, op: Op) -> tuple[tuple[Part, bool], ...]:
        """What an op waits for: `(("F" or "B", direction, stage, micro_batch), from another rank)`, each.

        F waits for F of the stage before; B and BW for F of their own stage and B of the stage after; W for B
        of its own stage; a block for both of its halves. A "B" is fulfilled at the end of a B, a BW or a
        block.
        """
        found = []
        for kind, d, s, i in parts(op):
            if kind == "W":
                found.append((("B", d, s, i), False))
                continue
            ranks = self.placement[d]
            if kind == "F":
                if s:
                    found.append((("F", d, s - 1, i), ranks[s - 1] != ranks[s]))
                continue
            found.append((("F", d, s, i), False))
            if s + 1 < len(ranks):
                found.append((("B", d, s + 1, i), ranks[s + 1] != ranks[s]))
        return tuple(found)

    def digest(self) -> str:
        """16 hex digits that are equal only for equal orders."""
        text = "".join("|".join(",".join(map(str, op)) for op in ops) + "\n" for ops in self.orders)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def _chunks(self) -> tuple[tuple[int, ...], ...]:
        seen = [0] * self.stages
        table = []
        for ranks in self.placement:
            row = []
            for rank in ranks:
                row.append(seen[rank])
                seen[rank] += 1
            table.append(tuple(row))
        return tuple(table)


def parts(op: Op) -> tuple[Part, ...]:
    """The op itself, or the forward and the full backward of an overlapped block."""
    if op[0] == "FB":
        return ("F", *op[1:4]), ("BW", *op[4:7])
    return (op,)


def outputs(op: Op) -> tuple[Part, ...]:
    """What others may wait for when the op ends, under the names that `Schedule.dependencies` uses."""
    if op[0] == "FB":
        return ("F", *op[1:4]), ("B", *op[4:7])
    if op[0] == "BW":
        return (("B", *op[1:]),)
    return (op,)


def freeze(orders: Iterable[Iterable[Op]]) -> Orders:
    return tuple(tuple(ops) for ops in orders)


def loop_placement(stages: int, chunks: int = 1) -> Placement:
    """Virtual stage s on rank s mod p: one pass over the ranks for each chunk."""
    return (tuple(s % stages for s in range(stages * chunks)),)


def v_placement(stages: int) -> Placement:
    """Two chunks a rank, down the ranks and back up: the first and the last virtual stage share rank 0."""
    return (tuple(range(stages)) + tuple(reversed(range(stages))),)


def peaks(orders: Sequence[Sequence[Op]], until: str = "W") -> list[int]:
    """By rank: most (stage, micro-batch) pairs in flight, from F to the end of W, or of B when `until="B"`.

    Follows from the order alone. The forward of a block is counted before its backward is released.
    """
    freed_by = {"W": ("W", "BW"), "B": ("B", "BW")}[until]
    result = []
    for ops in orders:
        alive = peak = 0
        for op in ops:
            kinds = ("F", "BW") if op[0] == "FB" else (op[0],)
            for kind in kinds:
                if kind == "F":
                    alive += 1
                    peak = max(peak, alive)
                elif kind in freed_by:
                    alive -= 1
        result.append(peak)
    return result


def op_text(op: Op, directions: int = 1) -> str:
    """`F of stage 2, micro-batch 5`, for messages."""
    texts = []
    for kind, d, s, i in parts(op):
        way = f", direction {d}" if directions > 1 else ""
        texts.append(f"{kind} of stage {s}, micro-batch {i}{way}")
    return " with ".join(texts)
