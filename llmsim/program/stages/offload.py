"""State kept outside the GPU: what is copied when, and what a copy or a CPU's optimizer step loads.

Optimizer (ZeRO-Offload, Ren et al. 2021, arXiv 2101.06840): each rank's reduced gradients go to the CPU while backward
passes go on, the CPU updates, updated parameters come back bucket by bucket while it updates the next one. From disks
(ZeRO-Infinity, Rajbhandari et al. 2021, arXiv 2104.07857) states stream through host memory during the update.
Parameters: a rank's shard of each layer comes from outside before the layer is gathered. Activations: what a layer
keeps goes out while the next one computes, and comes back while the one behind it runs backward; a stage's last layer
stays, since its backward may follow at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llmsim.catalogue.offload_constants import offload_shares
from llmsim.model.work import HostCopy, HostUpdate, Step
from llmsim.program.stages.optimizer import OPTIMIZERS


@dataclass(frozen=True, slots=True)
class Offloading:
    """Where state lives: none, cpu or nvme. link: of a GPU to its CPU, pcie or c2c."""

    optimizer: str
    activations: str
    parameters: str
    link: str

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways (`llmsim.cluster.host.WAYS`) that something takes."""
        used = {f"{way}_{place}" for place in (self.activations, self.parameters) for way in ("to", "from")}
        if self.optimizer != "none":
            # Gradients and parameters pass through host memory, wherever the optimizer's states are.
            used |= {"to_cpu", "from_cpu", "cpu_memory"}
            used |= {"nvme_read", "nvme_write"} if self.optimizer == "nvme" else set()
        return tuple(sorted(way for way in used if not way.endswith("none")))

    @property
    def inside_passes(self) -> tuple[str, ...]:
        """Those of them that passes take."""
        places = {self.activations, self.parameters} - {"none"}
        return tuple(sorted(f"{way}_{place}" for place in places for way in ("to", "from")))

    def out(self, name: str, size: float, place: str, phase: str) -> Step:
        """A copy of `size` bytes to where something lives."""
        share = offload_shares().to_host[self.link]
        return self._copy(name, f"to_{place}", size, share, "offload", phase)

    def back(self, name: str, size: float, place: str, phase: str) -> Step:
        """A copy of `size` bytes from where something lives."""
        share = offload_shares().from_host[self.link]
        return self._copy(name, f"from_{place}", size, share, "prefetch", phase)

    @staticmethod
    def _copy(name: str, way: str, size: float, share: float, stream: str, phase: str) -> Step:
        share = min(share, offload_shares().nvme) if way.endswith("nvme") else share
        return Step(name, HostCopy(way, size, share), stream, phase)

    def gradients(self, values: float, grad_bytes: int) -> Step:
        """The rank's own reduced gradients, to the CPU that updates."""
        return self.out("gradients to CPU", values * grad_bytes, "cpu", "backward")

    def fetch(self, values: float, param_bytes: int, phase: str) -> Step:
        """A shard of parameters, before it is gathered."""
        return self.back("parameters from outside", values * param_bytes, self.parameters, phase)


def cpu_update(optimizer: str, values: float, grad_bytes: int, param_bytes: int, disks: bool) -> Step:
    """One bucket of the optimizer step on the CPU: the traffic of the GPU's kernel, in host memory (and on disks)."""
    state = 4 * OPTIMIZERS[optimizer].state  # bytes a parameter, master weights included
    moved = values * (grad_bytes + 2 * state + param_bytes * (param_bytes < 4))
    streamed = values * state if disks else 0.0
    # What streams through memory is written and read once more.
    return Step(f"{optimizer} on CPU", HostUpdate(moved + 4 * streamed, streamed, streamed), "cpu", "update")


def activation_copies(
    kept: Sequence[float], moved: Sequence[bool], offloading: Offloading
) -> tuple[list[list[Step]], list[list[Step]]]:
    """For the parts of a stage (forward order): copies out behind the forward of each, and back before its backward.

    kept: bytes of each part. moved: whether they leave the GPU.
    """
    place = offloading.activations
    out = [[offloading.out("activations out", size, place, "forward")] * gone for size, gone in zip(kept, moved)]
    back = [[offloading.back("activations back", size, place, "backward")] * gone for size, gone in zip(kept, moved)]
    return out, back
