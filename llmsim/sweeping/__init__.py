"""Many scenarios: a grid or a list of changed keys, one row of results for each.

(The package is not called `sweep`, because `llmsim.sweep` is the function.)
"""

from llmsim.sweeping.points import expand
from llmsim.sweeping.sweep import sweep

__all__ = ["expand", "sweep"]
