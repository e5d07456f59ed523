"""One layout that search considers: its keys, its bounds, and what was simulated of it."""

from dataclasses import dataclass, field

from llmsim.memory.summary import TIGHT
from llmsim.scenario import Scenario
from llmsim.studies.search.bounds import Bound
from llmsim.studies.search.settings import settings_of
from llmsim.studies.sweep.outcome import Row
from llmsim.studies.sweep.points import Point

# Follow from the layout, or hold for the scenario's own layout only.
OPEN = {
    "parallelism.dp": None,
    "parallelism.stage_layers": "balanced",
    "simulation.iterations": 1,
    "simulation.detail": "block",
}


@dataclass(frozen=True)
class Layout:
    """One valid layout. `bound` always holds; `row` are its metrics by dotted name, None where it was not simulated.

    given: the scenario that was searched from.
    """

    point: Point
    bound: Bound
    given: Scenario = field(repr=False, compare=False)
    row: Row | None = None

    @property
    def set(self) -> list[str]:
        """`KEY=VALUE` of all that makes the scenario this layout: `load_scenario(path, layout.set)`, or `--set`."""
        return settings_of(self.given, {**OPEN, **self.point})

    @property
    def fits(self) -> bool:
        return self.row is not None and self.row["status"] == "ok"

    @property
    def seconds(self) -> float:
        """Of one iteration."""
        return self.row["iteration_time_s"]

    @property
    def peak_gib(self) -> float:
        return self.row["memory.peak_gib"]

    @property
    def tight(self) -> bool:
        """Whether it fits only because the allocator gives up gaps between tensors that it usually leaves."""
        return self.fits and self.peak_gib > TIGHT * self.row["memory.capacity_gib"]
