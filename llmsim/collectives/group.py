"""What a collective algorithm needs to know of where the members of one communicator sit."""

from dataclasses import dataclass

from llmsim.catalogue.collective_constants import CATALOGUED, Achieved
from llmsim.errors import CollectiveError

ARCHITECTURES = ("volta", "ampere", "hopper", "blackwell")
SCALE_UP = ("nvswitch", "cube-mesh", "pcie", "host", "none")


@dataclass(frozen=True, slots=True)
class Group:
    """One communicator, reduced to the numbers that its time depends on (rates in bytes/s, one direction).

    A node is one scale-up (NVLink or PCIe) domain. Raises `CollectiveError` when the counts contradict each other.
    """

    ranks: int  # members in all
    nodes: int = 1  # scale-up domains touched
    per_node: int = 0  # most members in one node; 0 = ranks / nodes, rounded up
    architecture: str = "hopper"  # volta | ampere | hopper | blackwell
    scale_up: str = "nvswitch"  # nvswitch | cube-mesh | pcie | host (no P2P, staged in memory) | none
    scale_up_bandwidth: float = 450e9  # datasheet NVLink rate of one GPU; the PCIe rate when scale_up is pcie
    nvlinks: int = 18
    pcie_bandwidth: float = 64e9
    nic_bandwidth: float = 50e9  # of one NIC
    nics: float = 8  # NICs this communicator can use in one node
    fabric: str = "ib"  # ib | roce | efa | tcpx | tcpxo | omnipath | slingshot | ethernet
    fabric_latency: float = 0.0  # one-way seconds between nodes beyond what the catalogue's hop includes
    local_latency: float = 0.0  # the same of a hop inside a node
    rail_aligned: bool = True
    nvls: bool = False  # NVLink switches reduce (NVLink SHARP)
    sharp: bool = False  # network switches reduce
    achieved: Achieved = CATALOGUED  # what its collectives achieve of all this

    def __post_init__(self) -> None:
        if self.ranks < 1 or not 1 <= self.nodes <= self.ranks:
            raise CollectiveError(
                f"a group of {self.ranks} ranks on {self.nodes} nodes cannot exist; expected 1 <= nodes <= ranks"
            )
        if self.per_node == 0:
            object.__setattr__(self, "per_node", -(-self.ranks // self.nodes))
        if not self.per_node <= self.ranks <= self.per_node * self.nodes:
            raise CollectiveError(f"{self.ranks} ranks do not fit on {self.nodes} nodes of {self.per_node}")
        if self.architecture not in ARCHITECTURES:
            raise CollectiveError(
                f"architecture {self.architecture!r} is unknown; expected one of {', '.join(ARCHITECTURES)}"
            )
        if self.scale_up not in SCALE_UP:
            raise CollectiveError(f"scale-up {self.scale_up!r} is unknown; expected one of {', '.join(SCALE_UP)}")
