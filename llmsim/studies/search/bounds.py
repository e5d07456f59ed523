"""Lower bounds: no simulation of a layout takes less time, or holds less memory, than these say."""

from dataclasses import dataclass

from llmsim.scenario import Scenario
from llmsim.studies.search.least_memory import least_bytes
from llmsim.studies.search.least_time import least_seconds
from llmsim.studies.search.outline import outline_of


@dataclass(frozen=True, slots=True)
class Bound:
    """seconds of one iteration, bytes on the fullest GPU: at least. capacity: bytes that a GPU has for training.

    The time of what certainly does not fit is not worth knowing, and 0.
    """

    seconds: float
    bytes: float
    capacity: float

    @property
    def fits(self) -> bool:
        """False: certainly too large."""
        return self.bytes <= self.capacity


def bound(scenario: Scenario) -> Bound:
    """The bounds of a valid scenario."""
    outline = outline_of(scenario)
    held, capacity = least_bytes(outline)
    return Bound(least_seconds(outline) if held <= capacity else 0.0, held, capacity)
