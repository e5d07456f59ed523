"""Where the time of an iteration goes, from a trace alone: one that was saved, or came from elsewhere."""

from typing import TYPE_CHECKING

from llmsim.analysis.played.recorded import recorded
from llmsim.analysis.played.time_ledger import account, mean_breakdown

if TYPE_CHECKING:
    import pandas as pd


def trace_breakdown(trace: "pd.DataFrame") -> dict[str, float]:
    """Seconds by part of the last iteration, mean over ranks, adding up to its length (CONTRACT section 3).

    The same as the `time_breakdown` of the run that made the trace.
    """
    found = recorded(trace)
    return mean_breakdown(account(found.recording), found.count)
