"""GPipe: all forwards, then all backwards (Huang et al. 2019, arXiv 1811.06965, figure 2)."""

from llmsim.parallel.schedules.order import Schedule, freeze, loop_placement


def gpipe(stages: int, micro_batches: int, chunks: int = 1) -> Schedule:
    """Backwards in the order of the forwards."""
    return _gpipe("gpipe", stages, micro_batches, range(micro_batches))


def gpipe_lifo(stages: int, micro_batches: int, chunks: int = 1) -> Schedule:
    """Backwards from the last micro-batch to the first, as a stack of activations would be popped."""
    return _gpipe("gpipe-lifo", stages, micro_batches, range(micro_batches)[::-1])


def _gpipe(name: str, p: int, m: int, backwards: range) -> Schedule:
    orders = ([("F", 0, r, i) for i in range(m)] + [("BW", 0, r, i) for i in backwards] for r in range(p))
    return Schedule(name, p, m, freeze(orders), loop_placement(p))
