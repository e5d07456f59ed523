"""The best parallel layout of a model on a cluster: bounds rule most layouts out, the rest are simulated."""

from llmsim.searching.search import Found, Layout, search

__all__ = ["Found", "Layout", "search"]
