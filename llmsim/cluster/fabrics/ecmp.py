"""Which of equal paths a flow takes under static hashing (ECMP): an index from its ends and a seed."""

import numpy as np


def ecmp_hash(*values: np.ndarray | int) -> np.ndarray:
    """A well mixed uint64 of each row of integers (splitmix64), the same on every machine."""
    state = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        for value in values:
            state = (state ^ np.asarray(value, dtype=np.int64).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state
