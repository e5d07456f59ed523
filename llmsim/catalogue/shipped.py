"""Scenarios and topologies that come with llmsim, by name: the only place that knows where they lie.

In a checkout they are the folders `scenarios/` and `topologies/` beside the package; a wheel holds copies of them in
`llmsim/shipped/` (`sources` in pyproject.toml).
"""

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "shipped", _PACKAGE.parent)


@cache
def shipped(kind: str) -> dict[str, Path]:
    """The file of each name, in order of names. kind: `scenarios` or `topologies`."""
    for place in _PLACES:
        if found := {file.stem: file for file in (place / kind).glob("*.yaml")}:
            return dict(sorted(found.items()))
    return {}
