"""ZB-V: two chunks a rank placed in a V, zero bubble with the memory of 1F1B when F = B = W.

Qi et al. 2024 (arXiv 2401.10241), figure 8. Rank r holds virtual stages r and 2p - 1 - r, so a
micro-batch turns around on the last rank and its loss is on rank 0.
"""

from collections import deque

from llmsim.parallel.schedules.order import Schedule, freeze, v_placement


def zb_v(stages: int, micro_batches: int, chunks: int = 2) -> Schedule:
    """In the drain the oldest pending weight gradient of the rank goes first, of either chunk."""
    return _zb_v("zb-v", stages, micro_batches, oldest_first=True)


def zb_v_torch(stages: int, micro_batches: int, chunks: int = 2) -> Schedule:
    """The drain of torch.distributed.pipelining: W of chunk 0 first, then those of chunk 1 before chunk 0."""
    return _zb_v("zb-v-torch", stages, micro_batches, oldest_first=False)


def _zb_v(name: str, p: int, m: int, oldest_first: bool) -> Schedule:
    # The pattern needs 2p - 1 micro-batches; a shorter pipeline plays it with the surplus ones left out.
    orders = (_Rank(p, max(m, 2 * p - 1), r, oldest_first).order(m) for r in range(p))
    return Schedule(name, p, m, freeze(orders), v_placement(p))


class _Rank:
    """Writes one rank's order; counts per (kind, chunk) which micro-batch comes next."""

    def __init__(self, p: int, n: int, r: int, oldest_first: bool) -> None:
        self.p, self.n, self.r, self.oldest_first = p, n, r, oldest_first
        self.stage = (r, 2 * p - 1 - r)
        self.next = dict.fromkeys([(kind, c) for kind in "FBW" for c in (0, 1)], 0)
        self.pending: deque[int] = deque()  # chunks of the weight gradients not done, oldest first
        self.ops: list[tuple] = []

    def add(self, kind: str, chunk: int) -> None:
        i = self.next[kind, chunk]
        self.next[kind, chunk] += 1
        self.ops.append((kind, 0, self.stage[chunk], i))
        if kind == "B":
            self.pending.append(chunk)
        elif kind == "W":
            self.pending.remove(chunk)

    def add_pending(self, preferred: int) -> None:
        waiting = preferred if preferred in self.pending else 1 - preferred
        self.add("W", self.pending[0] if self.oldest_first else waiting)

    def order(self, m: int) -> list[tuple]:
        p, n, r, add = self.p, self.n, self.r, self.add
        for _ in range(2 * (p - r) - 1):
            add("F", 0)
        for _ in range(r):
            add("F", 1)
            add("F", 0)
        for _ in range(p - r):
            add("F", 1)
            add("B", 1)
            add("W", 1)
        while self.next["F", 1] < n or self.next["F", 0] < n:
            if self.next["F", 0] < n:
                add("F", 0)
            add("B", 0)
            add("W", 0)
            add("F", 1)
            add("B", 1)
            add("W", 1)
        for _ in range(r):
            add("B", 0)
            add("B", 1)
        for _ in range(p - r):
            add("B", 0)
            self.add_pending(0)
        while self.pending:
            self.add_pending(1)
        return [op for op in self.ops if op[3] < m]
