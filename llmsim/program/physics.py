"""How fast everything is: the one value that programs and bounds are made under.

It holds whatever calibration and what-ifs change, so that what is remembered under it is right wherever it is equal.
"""

from dataclasses import dataclass, replace

from llmsim.catalogue.collective_constants import CATALOGUED, Achieved
from llmsim.catalogue.gpus import Gpu
from llmsim.catalogue.kernel_constants import KernelConstants, kernel_constants
from llmsim.cost.kernels import scaled
from llmsim.program.what_if import AS_IS, WhatIf
from llmsim.scenario import Scenario


@dataclass(frozen=True)
class Physics:
    """what_if: its factors include calibrated speeds. kernels: factors on the kernel constants of the GPU, by name."""

    what_if: WhatIf = AS_IS
    kernels: tuple[tuple[str, float], ...] = ()
    achieved: Achieved = CATALOGUED

    def constants(self, gpu: Gpu) -> KernelConstants:
        """Of the GPU that these physics are of."""
        return scaled(kernel_constants(gpu.kernels), dict(self.kernels))


def physics_of(scenario: Scenario, what_if: WhatIf = AS_IS) -> Physics:
    """The catalogue's, as the scenario's calibration file and a what-if change them."""
    resolved = scenario.resolve()
    calibrated = resolved.calibration
    faster = {name: getattr(what_if, name) * factor for name, factor in calibrated.speeds.items()}
    kernels = calibrated.kernels.get(resolved.topology.gpu.kernels, {})
    return Physics(replace(what_if, **faster), tuple(sorted(kernels.items())), Achieved.of(calibrated.collectives))
