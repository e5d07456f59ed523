"""Many scenarios: a grid or a list of changed keys, one row of results for each.

(The package is not called `sweep`, because `llmsim.sweep` is the function.)
"""

from llmsim.studies.sweep.points import expand
from llmsim.studies.sweep.sweep import sweep

__all__ = ["expand", "sweep"]
