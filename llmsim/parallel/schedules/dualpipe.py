"""DualPipe: micro-batches enter at both ends, and forwards overlap with backwards of the other direction.

DeepSeek-V3 technical report (arXiv 2412.19437), section 3.2.1 and figure 5. Every rank holds two stages, one
of each direction, so the parameters exist twice. Half of the micro-batches go each way.
"""

from collections import deque

from llmsim.errors import ScheduleError
from llmsim.parallel.schedules.order import Schedule, freeze


def check_dualpipe(stages: int, micro_batches: int, chunks: int = 1) -> None:
    """p and m even, m >= 2p. Raises `ScheduleError`."""
    if stages % 2:
        raise ScheduleError(f"dualpipe needs an even number of stages; {stages} is odd, expected {stages + 1}")
    if micro_batches % 2:
        raise ScheduleError(
            f"dualpipe needs an even number of micro-batches, half for each direction, not {micro_batches}; "
            f"expected such as {max(2 * stages, micro_batches + 1)}"
        )
    if micro_batches < 2 * stages:
        raise ScheduleError(
            f"dualpipe needs at least 2 micro-batches per stage; {micro_batches} over {stages} stages is "
            f"too few, expected at least {2 * stages}"
        )


def dualpipe(stages: int, micro_batches: int, chunks: int = 1) -> Schedule:
    """Direction 0 runs down the ranks and direction 1 up. Raises `ScheduleError`."""
    check_dualpipe(stages, micro_batches)
    p, half = stages, stages // 2
    orders = []
    for r in range(p):
        down, up = (0, r), (1, p - 1 - r)
        phases = (down, up) if r < half else (up, down)
        depth = min(r, p - 1 - r)
        orders.append(two_phase_order(half, depth, micro_batches // 2, phases))
    placement = (tuple(range(p)), tuple(reversed(range(p))))
    return Schedule("dualpipe", p, micro_batches, freeze(orders), placement, parameter_copies=2)


def two_phase_order(depth: int, rank: int, n: int, phases: tuple[tuple[int, int], tuple[int, int]]) -> list[tuple]:
    """The eight steps of one rank, for the bidirectional pipeline and for its V-shaped half alike.

    depth: ranks from the outside to the turning point; rank: this one's place on that way, 0 outermost. n:
    micro- batches of each phase. phases: the (direction, stage) of what enters here first, and of what comes
    back.
    """
    return _Writer(depth, rank, n, phases).order()


class _Writer:
    """Writes one rank's order; counts per phase which forward and which backward comes next."""

    def __init__(self, depth: int, rank: int, n: int, phases: tuple[tuple[int, int], ...]) -> None:
        self.depth, self.rank, self.n, self.phases = depth, rank, n, phases
        self.forwards, self.backwards = [0, 0], [0, 0]
        self.pending: deque[tuple] = deque()
        self.ops: list[tuple] = []

    def _forward(self, phase: int) -> tuple:
        self.forwards[phase] += 1
        return (*self.phases[phase], self.forwards[phase] - 1)

    def _backward(self, phase: int) -> tuple:
        self.backwards[phase] += 1
        return (*self.phases[phase], self.backwards[phase] - 1)

    def forward(self, phase: int) -> None:
        self.ops.append(("F", *self._forward(phase)))

    def backward(self, phase: int, split: bool = False) -> None:
        what = self._backward(phase)
        self.ops.append(("B" if split else "BW", *what))
        if split:
            self.pending.append(("W", *what))

    def weight(self) -> None:
        self.ops.append(self.pending.popleft())

    def block(self, forward: int, backward: int) -> None:
        self.ops.append(("FB", *self._forward(forward), *self._backward(backward)))

    def order(self) -> list[tuple]:
        outer = self.depth - 1 - self.rank  # ranks between this one and the turning point
        for _ in range(2 * outer):
            self.forward(0)
        for _ in range(self.rank + 1):
            self.forward(0)
            self.forward(1)
        for _ in range(outer):
            self.backward(1, split=True)
            self.weight()
            self.forward(1)
        for k in range(self.n - 2 * self.depth + self.rank + 1):
            if k == 0 and outer == 0:
                # At the turning point nothing has come back yet that the first backward could hide under.
                self.forward(0)
                self.backward(1)
            else:
                self.block(0, 1)
            self.block(1, 0)
        for _ in range(outer):
            self.backward(1)
            self.block(1, 0)
        for k in range(2 * (self.rank + 1)):
            self.backward(1 - k % 2, split=k > self.rank)
        for _ in range(outer):
            self.weight()
            self.backward(0, split=True)
        while self.pending:
            self.weight()
        return self.ops
