"""What bounds a run and what would make it faster, from simulations of the same run under other physics."""

from llmsim.studies.explain.explain import Change, Explanation, Free, explain

__all__ = ["Change", "Explanation", "Free", "explain"]
