"""What would change if a part of the machine were free: the same program under other physics.

A what-if changes neither the program nor its order, only what its ops cost and whom they wait for; the difference to
the real iteration is what that part costs.
"""

from dataclasses import dataclass

FREE = 1e9  # times faster; finite, so that every duration stays a number


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The default changes nothing. Numbers are factors on speeds.

    math: tensor and vector arithmetic; hbm: GPU memory bandwidth; inside and between: bandwidth of communication whose
    group sits in one node, and of communication that leaves it; latency: all fixed delays of communication. Flags:
    launch: kernels have launch gaps; interference: communication takes SMs and memory bandwidth from computation
    beside it; waiting: pipeline stages wait for one another; loading: data has to be loaded.
    """

    math: float = 1.0
    hbm: float = 1.0
    inside: float = 1.0
    between: float = 1.0
    latency: float = 1.0
    launch: bool = True
    interference: bool = True
    waiting: bool = True
    loading: bool = True


AS_IS = WhatIf()
