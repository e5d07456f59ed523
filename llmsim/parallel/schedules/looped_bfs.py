"""Looped breadth-first: every micro-batch through chunk 0, then every one through chunk 1, and back.

Lamy-Poirier 2023 (arXiv 2211.05953): the chunk loop outside the micro-batch loop lets the gradients of a
chunk be reduced while the next chunk computes. Memory is GPipe's.
"""

from llmsim.parallel.schedules.order import Schedule, freeze, loop_placement


def looped_bfs(stages: int, micro_batches: int, chunks: int = 2) -> Schedule:
    """Backwards from the last micro-batch to the first within each chunk."""
    return _looped("looped-bfs", stages, micro_batches, chunks, range(micro_batches)[::-1])


def looped_bfs_fifo(stages: int, micro_batches: int, chunks: int = 2) -> Schedule:
    """Backwards in the order of the forwards within each chunk."""
    return _looped("looped-bfs-fifo", stages, micro_batches, chunks, range(micro_batches))


def _looped(name: str, p: int, m: int, v: int, backwards: range) -> Schedule:
    orders = (
        [("F", 0, c * p + r, i) for c in range(v) for i in range(m)]
        + [("BW", 0, c * p + r, i) for c in reversed(range(v)) for i in backwards]
        for r in range(p)
    )
    return Schedule(name, p, m, freeze(orders), loop_placement(p, v))
