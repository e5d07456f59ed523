"""Pictures of results. Every name here loads its module, and matplotlib with it, when it is first used."""

from importlib import import_module

_MODULE_OF = {
    "plot_timeline": "timeline",
    "plot_schedule_comparison": "comparison",
    "plot_breakdown": "breakdown",
    "plot_utilization": "utilization",
    "plot_memory": "memory",
    "plot_traffic": "traffic",
    "plot_bubble_curves": "curves",
    "plot_scaling": "curves",
    "plot_collective": "curves",
    "plot_topology": "topology",
    "plot_job": "job",
    "plot_goodput_intervals": "job",
    "plot_goodput_sizes": "job",
    "plot_plan": "job",
    "timeline_html": "html",
    "save_figure": "style",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
