"""The error tree. Everything a user can cause is a `UserError`; its text is one sentence (exit status 2).

LlmsimError
├── UserError              the user's input is wrong
│   ├── ScenarioError      a scenario file: file, key, value and what is accepted
│   ├── CatalogueError     an unknown GPU, model, topology or schedule name
│   ├── TopologyError      a topology file or an imported graph
│   ├── ModelError         a model description or a Hugging Face config.json
│   ├── ScheduleError      a pipeline schedule that does not exist or cannot run (deadlock included)
│   ├── CollectiveError    a collective that does not exist or cannot run on this group
│   └── UnitError          a quantity that cannot be read
└── SimulationError        the engine cannot go on: a bug, or a cluster whose links are down
"""

import difflib
from collections.abc import Iterable


class LlmsimError(Exception):
    """Every error that llmsim raises on purpose."""


class UserError(LlmsimError):
    """The user's input is wrong; the message says where and what would be accepted."""


class ScenarioError(UserError):
    """A mistake in a scenario file."""


class CatalogueError(UserError):
    """A name that the catalogue does not hold."""


class TopologyError(UserError):
    """A mistake in a topology file or graph."""


class ModelError(UserError):
    """A mistake in a model description."""


class ScheduleError(UserError):
    """A pipeline schedule that cannot run."""


class CollectiveError(UserError):
    """A collective that cannot run on this group."""


class UnitError(UserError):
    """A quantity that cannot be read."""


class SimulationError(LlmsimError):
    """The simulation cannot go on."""


def nearest(name: object, known: Iterable[str]) -> str:
    """A suffix for error messages: `; did you mean 'x'?`, or nothing when no known name is close."""
    by_lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
