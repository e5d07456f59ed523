"""A scenario: what a user writes, validated. The one door through which input enters llmsim.

`load_scenario(path)` reads a file, `Scenario(**mapping)` takes the same keys from Python; both raise `ScenarioError`
with one line for each mistake. `scenario.resolve()` is what the other layers need: the model's architecture, the
topology and the layout of ranks.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr, ValidationError

from llmsim.catalogue.frameworks import with_framework
from llmsim.errors import ScenarioError
from llmsim.scenario.complaints import complaints
from llmsim.scenario.keys import ScenarioKeys
from llmsim.scenario.origin import Origin
from llmsim.scenario.overrides import overridden
from llmsim.scenario.resolve import Resolved, beside, resolve


class Scenario(ScenarioKeys):
    """One training run to simulate. Frozen: `with_values` makes changed copies."""

    _given: dict[str, Any] = PrivateAttr(default_factory=dict)
    _origin: Origin = PrivateAttr(default_factory=Origin)
    _resolved: Resolved | None = PrivateAttr(default=None)

    def __init__(self, /, **mapping: Any) -> None:
        self._fill(deepcopy(mapping), Origin())

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], origin: Origin) -> Self:
        """As `Scenario(**mapping)`; complaints say where `origin` has the keys."""
        scenario = cls.__new__(cls)
        scenario._fill(mapping, origin)
        return scenario

    def __eq__(self, other: object) -> bool:
        """Equal where every key is; which file said it does not matter."""
        if not isinstance(other, Scenario):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)

    def __hash__(self) -> int:
        return hash(self.name)

    def with_values(self, values: Mapping[str, object]) -> Self:
        """A copy with dotted keys changed, validated again: `scenario.with_values({"cluster.nodes": 4})`."""
        return self._copy(overridden(self._given, values), self._origin.with_overrides(values, ""))

    def _copy(self, mapping: Mapping[str, Any], origin: Origin) -> Self:
        scenario = type(self).__new__(type(self))
        scenario._fill(mapping, origin, self)
        return scenario

    def says(self, key: str) -> bool:
        """Whether the user gave this dotted key; a default, or what a framework makes it, does not count."""
        place: Any = self._given
        for part in key.split("."):
            if not isinstance(place, Mapping) or part not in place:
                return False
            place = place[part]
        return True

    def beside(self, name: str) -> Path:
        """A path as the scenario file means it: relative to that file, or else to where llmsim was called."""
        return beside(name, self._origin)

    def resolve(self) -> Resolved:
        """Architecture, topology and layout; made once, when the scenario was validated."""
        return self._resolved

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed but probably not meant, one sentence each."""
        return self._resolved.warnings

    def _fill(self, mapping: Mapping[str, Any], origin: Origin, sibling: "Scenario | None" = None) -> None:
        try:
            self.__pydantic_validator__.validate_python(dict(with_framework(mapping)), self_instance=self)
        except ValidationError as error:
            found = complaints(error, type(self))
            raise ScenarioError("\n".join(origin.sentence(key, text) for key, text in found)) from None
        self._given, self._origin = dict(mapping), origin
        # A sweep changes few keys: what the sibling has already looked up is not looked up again.
        self._resolved = resolve(self, origin, sibling and (sibling, sibling.resolve()))
