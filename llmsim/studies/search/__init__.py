"""The best parallel layout of a model on a cluster: bounds rule most layouts out, the rest are simulated."""

from llmsim.studies.search.candidate import Layout
from llmsim.studies.search.search import Found, search

__all__ = ["Found", "Layout", "search"]
