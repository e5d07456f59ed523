"""What launching work costs the host: `host.yaml`, read once. Units and sources are in the file."""

from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class HostCost:
    """Seconds of the launching thread for one kernel, one collective, and one parameter tensor of an optimizer step.

    experts, experts_backward: what a GPU waits for in each layer of experts whose token counts the host reads back.
    """

    kernel: float = 0.0
    communication: float = 0.0
    tensor: float = 0.0
    experts: float = 0.0
    experts_backward: float = 0.0

    def slower(self, factor: float) -> "HostCost":
        """A host that takes `factor` times as long to launch."""
        return HostCost(self.kernel * factor, self.communication * factor, self.tensor * factor)

    @property
    def free(self) -> bool:
        """Whether launches never take time."""
        return not (self.kernel or self.communication or self.tensor)


@cache
def host_ways() -> dict[str, HostCost]:
    """Costs by the way that a framework launches: ahead, eager, compiled, graphs, megatron."""
    import yaml

    text = resources.files("llmsim.catalogue").joinpath("host.yaml").read_text(encoding="utf-8")
    return {name: HostCost(**entry) for name, entry in yaml.safe_load(text)["ways"].items()}
