"""llmsim: a discrete-event simulator of LLM training clusters.

The public names are loaded when they are first used, so that `import llmsim` and the command line start fast.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"  # the only place that says it: pyproject.toml and the command line read it here

_PUBLIC = {
    "Scenario": "llmsim.scenario",
    "load_scenario": "llmsim.scenario",
    "simulate": "llmsim.simulation",
    "Result": "llmsim.simulation",
    "remedies": "llmsim.studies.remedies",
    "simulate_schedule": "llmsim.standalone.pipeline",
    "compare_schedules": "llmsim.standalone.compare_pipelines",
    "simulate_collective": "llmsim.standalone.collective",
    "sweep": "llmsim.studies.sweep",
    "search": "llmsim.studies.search",
    "explain": "llmsim.studies.explain",
    "goodput": "llmsim.job",
    "plan": "llmsim.job",
    "plot_timeline": "llmsim.plots",
    "plot_schedule_comparison": "llmsim.plots",
    "plot_bubble_curves": "llmsim.plots",
    "plot_job": "llmsim.plots",
    "plot_goodput_intervals": "llmsim.plots",
    "plot_goodput_sizes": "llmsim.plots",
    "plot_plan": "llmsim.plots",
    "timeline_html": "llmsim.plots",
    "LlmsimError": "llmsim.errors",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'llmsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
