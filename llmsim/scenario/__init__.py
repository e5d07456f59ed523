"""User input: scenario files read, validated and resolved. The only place that parses them."""

from llmsim.scenario.load import load_scenario
from llmsim.scenario.resolve import Resolved
from llmsim.scenario.schema import Scenario

__all__ = ["Resolved", "Scenario", "load_scenario"]
