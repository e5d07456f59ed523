"""`search`: the best layouts of a scenario, the same that simulating all of them would find.

Every valid layout gets lower bounds of its time and memory. Those that cannot fit are ruled out; the others are
simulated, the most promising first, until what is left can neither be among the best nor on the Pareto front.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmsim.errors import UserError
from llmsim.scenario import Scenario
from llmsim.studies.search.bounds import Bound, bound
from llmsim.studies.search.candidate import OPEN, Layout
from llmsim.studies.search.ranking import OBJECTIVES, Objective, on_front, why_slower
from llmsim.studies.search.space import candidates, completed
from llmsim.studies.sweep.outcome import Row, run_point
from llmsim.studies.sweep.points import Point
from llmsim.studies.sweep.workers import default_workers, run_local

if TYPE_CHECKING:
    import pandas as pd

_GIB = 2**30
_TOGETHER = 24  # layouts whose bounds one task computes; neighbours share most of them
_BOUNDING = 0.5  # share of the time that bounds take, for the progress bar
# The front is found to within these factors, and as far as layouts this much slower than the fastest: bounds differ
# from simulations by a few per cent, so that an exact one would need most layouts simulated.
_NEAR_SECONDS, _NEAR_BYTES, _SLOWEST = 1.05, 1.15, 2.0


@dataclass(frozen=True)
class Found:
    """The answer. `best`: ranked by the objective; `front`: no other is both more than 5% faster and 15% smaller.

    complete: False when the search was interrupted and `best` holds the best so far. given: the scenario's own layout,
    None where it is not valid.
    """

    objective: str
    layouts: list[Layout] = field(repr=False)
    invalid: int
    complete: bool
    top: int
    given: Row | None = field(repr=False, default=None)

    @cached_property
    def best(self) -> list[Layout]:
        rank = OBJECTIVES[self.objective].of_row
        return sorted((each for each in self.simulated if each.fits), key=lambda each: rank(each.row))[: self.top]

    @cached_property
    def front(self) -> list[Layout]:
        return on_front([each for each in self.simulated if each.fits])

    @property
    def simulated(self) -> list[Layout]:
        return [each for each in self.layouts if each.row is not None]

    @property
    def counts(self) -> dict[str, int]:
        """How many combinations there were, and what became of them."""
        large = sum(not each.bound.fits for each in self.layouts)
        return {
            "valid": len(self.layouts),
            "invalid": self.invalid,
            "too_large": large,
            "simulated": len(self.simulated),
            "too_slow": len(self.layouts) - large - len(self.simulated),
        }

    def why(self, layout: Layout) -> str:
        """One sentence: why this layout is not the best."""
        bound = layout.bound
        if not bound.fits:
            return f"does not fit: needs at least {bound.bytes / _GIB:.1f} of {bound.capacity / _GIB:.1f} GiB"
        if layout.row is None:
            ending = "" if self.complete else " (not simulated: interrupted)"
            return f"cannot take less than {bound.seconds:.4g} s{ending}"
        if not layout.fits:
            return f"does not fit: {layout.row['reason']}"
        if layout is self.best[0]:
            return "the best"
        return why_slower(layout.row, self.best[0].row, self.objective)

    @property
    def warnings(self) -> list[str]:
        """What to know before running the best, one sentence each."""
        if not self.best or not self.best[0].tight:
            return []
        row, roomy = self.best[0].row, next((n for n, each in enumerate(self.best, 1) if not each.tight), None)
        place = f"number {roomy} has more room" if roomy else "none of those shown has more room"
        return [
            f"the best holds {row['memory.peak_gib']:.1f} of {row['memory.capacity_gib']:.1f} GiB, "
            f"{row['memory.peak_allocated_gib']:.1f} GiB of them tensors: too little is left for the gaps that an "
            f"allocator usually has between them, so that it may run slowly or out of memory; {place}"
        ]

    @cached_property
    def table(self) -> "pd.DataFrame":
        """A row for each valid layout: its keys, its bounds, what was simulated of it, and why it lost."""
        import pandas as pd

        rank = {id(layout): number for number, layout in enumerate(self.best, 1)}
        front = {id(layout) for layout in self.front}
        return pd.DataFrame([
            {
                **{key: str(value) if isinstance(value, dict) else value for key, value in layout.point.items()},
                "rank": rank.get(id(layout)),
                "on_front": id(layout) in front,
                "least_s": layout.bound.seconds,
                "least_gib": layout.bound.bytes / _GIB,
                "iteration_time_s": layout.row and layout.seconds,
                "peak_gib": layout.row and layout.peak_gib,
                "why": self.why(layout),
                "set": layout.set,
            }
            for layout in self.layouts
        ])  # fmt: skip


def search(
    scenario: Scenario | Mapping[str, Any],
    space: Mapping[str, Any] | None = None,
    objective: str = "time",
    top: int = 10,
    workers: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Found:
    """The `top` best layouts for the model, cluster and batch of `scenario`, and the Pareto front of time and memory.

    space: dotted keys with the values to try, in place of those of `default_space`; one value fixes a key. objective:
    `time` of an iteration, `cost` (GPUs × time), `memory` (GiB on the fullest GPU). workers: processes.
    Ctrl-C ends the search with the best so far. Raises `UserError` where no layout is valid, or for a wrong key.
    """
    if not isinstance(scenario, Scenario):
        scenario = Scenario(**scenario)
    if objective not in OBJECTIVES:
        raise UserError(f"objective: {objective!r} is not known; expected {', '.join(OBJECTIVES)}")
    if top < 1:
        raise UserError(f"top: {top} is too small; expected at least 1")
    report = progress or (lambda share: None)
    given = run_point(scenario, {"simulation.iterations": 1})
    given = given if given["status"] in ("ok", "out_of_memory") else None
    open_scenario = scenario.with_values(OPEN)
    points = list(candidates(open_scenario, completed(open_scenario, space)))
    state = _State(scenario, OBJECTIVES[objective], top, workers or default_workers())
    complete = True
    try:
        state.bound_all(open_scenario, points, report)
        state.simulate_all(open_scenario, report)
    except KeyboardInterrupt:
        complete = False
    if complete and not state.layouts:
        reason = state.reasons[0] if state.reasons else "no degrees divide the GPUs and the batch"
        raise UserError(f"no layout of the space is valid; for example: {reason}")
    return Found(objective, state.layouts, len(state.reasons), complete, top, given)


class _State:
    """What is known so far."""

    def __init__(self, given: Scenario, objective: Objective, top: int, workers: int) -> None:
        self.given, self.objective, self.top, self.workers = given, objective, top, workers
        self.layouts: list[Layout] = []
        self.reasons: list[str] = []
        self._order: list[int] = []  # layouts that may fit, the most promising first
        self._next = 0
        self._best: list[float] = []  # values of the best so far, ascending
        self._front: list[tuple[float, float]] = []  # (seconds, bytes) of what fits

    def bound_all(self, scenario: Scenario, points: list[Point], report: Callable[[float], None]) -> None:
        """Bounds of all points; the invalid ones drop out."""
        pieces = [points[i : i + _TOGETHER] for i in range(0, len(points), _TOGETHER)]
        tasks = ((str(number), piece) for number, piece in enumerate(pieces))
        found: dict[int, list] = {}
        for done, (key, result) in enumerate(run_local(_bounds, scenario, tasks, self._enough(len(pieces))), 1):
            if isinstance(result, BaseException):
                raise result
            found[int(key)] = result
            report(_BOUNDING * done / len(pieces))
        for number, piece in enumerate(pieces):
            for point, outcome in zip(piece, found[number]):
                if isinstance(outcome, Bound):
                    self.layouts.append(Layout(point, outcome, self.given))
                else:
                    self.reasons.append(outcome)

    def simulate_all(self, scenario: Scenario, report: Callable[[float], None]) -> None:
        """Simulate until nothing that is left can matter."""
        fitting = [index for index, layout in enumerate(self.layouts) if layout.bound.fits]
        value = self.objective.of_bound
        gpus = scenario.resolve().gpus
        per_node = scenario.resolve().gpus_per_node
        of = {
            i: value(self.layouts[i].bound, self.layouts[i].point.get("cluster.nodes", gpus // per_node) * per_node)
            for i in fitting
        }
        self._order = sorted(fitting, key=lambda i: (of[i], i))
        tasks = ((str(i), self.layouts[i].point) for i in self._promising(of))
        for key, row in run_local(run_point, scenario, tasks, self._enough(len(fitting))):
            if isinstance(row, BaseException):
                row = {"status": "failed", "reason": str(row)}
            self._learn(int(key), row)
            report(_BOUNDING + (1 - _BOUNDING) * self._next / max(1, len(self._order)))

    def _promising(self, of: Mapping[int, float]) -> Iterator[int]:
        """Layouts that may still be among the best or on the front, given what is known when the next is asked for."""
        for place, index in enumerate(self._order, 1):
            self._next = place
            among = len(self._best) < self.top or of[index] < self._best[self.top - 1]
            if among or self._may_join_front(self.layouts[index].bound):
                yield index

    def _may_join_front(self, bound: Bound) -> bool:
        fastest = min((seconds for seconds, _ in self._front), default=0.0)
        return bound.seconds < _SLOWEST * fastest and not any(
            seconds <= bound.seconds * _NEAR_SECONDS and held <= bound.bytes * _NEAR_BYTES
            for seconds, held in self._front
        )

    def _learn(self, index: int, row: Row) -> None:
        layout = self.layouts[index] = replace(self.layouts[index], row=row)
        if layout.fits:
            self._best = sorted([*self._best, self.objective.of_row(row)])[: self.top]
            self._front.append((layout.seconds, layout.peak_gib * _GIB))

    def _enough(self, tasks: int) -> int:
        """Workers take a second to start, which few tasks are not worth."""
        return max(1, min(self.workers, tasks // 4))


def _bounds(scenario: Scenario, points: list[Point]) -> list[Bound | str]:
    """Of each point its bounds, or why it is not valid."""
    result: list[Bound | str] = []
    for point in points:
        try:
            result.append(bound(scenario.with_values(point)))
        except UserError as error:
            result.append("; ".join(str(error).splitlines()))
    return result
