"""Leaves, spines and cores by arithmetic: fat tree, leaf-spine, rail-optimised and rail-only fabrics of any size.

A leaf has U lanes up, and lane l goes to spine l mod S of its pod (and plane). Under ideal spreading the lanes
of a leaf act as one bundle; lanes and bundles are both in the link table, a bundle being worth its lanes' sum.
Sizes follow the published reference designs (DGX SuperPOD: 4 units of 32 nodes have 32 leaves, 16 spines).
"""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from llmsim.cluster.fabrics.ecmp import ecmp_hash
from llmsim.cluster.links import KIND, Edge
from llmsim.cluster.topology import Topology
from llmsim.errors import SimulationError, TopologyError

MOST_LINKS = 8_000_000  # lanes above the leaves, both directions; a full fat tree of 2^20 GPUs has half of that


def _is(end: tuple[str, np.ndarray], device: str, count: int) -> np.ndarray:
    """Which links have this device (`leaf3`, `spines`) at this end."""
    tier, numbers = end
    if tier.endswith("s"):
        return np.full(count, device == tier)
    number = device.removeprefix(tier)
    return numbers == int(number) if number != device and number.isdigit() else np.zeros(count, dtype=bool)


@dataclass(frozen=True)
class Clos:
    """Counts and ids. Link ids are local to the fabric; blocks in the order of `blocks`."""

    rails: int  # leaves that one unit (leaf_nodes nodes) has
    unit_nodes: int
    leaves: int
    lanes: int  # up from one leaf
    lane_bandwidth: float
    planes: int  # rail-only: each rail has spines of its own
    pods: int
    units_per_pod: int
    spines_per_pod: int  # of one plane
    core_lanes: int  # up from one pod
    core_lane_bandwidth: float
    cores: int
    latency: float

    @property
    def spines(self) -> int:
        return self.pods * self.planes * self.spines_per_pod

    @property
    def leaf_uplink(self) -> float:
        """bytes/s up from one leaf."""
        return self.lanes * self.lane_bandwidth

    @property
    def tiered(self) -> bool:
        """Whether there is anything above the leaves."""
        return self.leaves > 1 and not (self.planes > 1 and self.leaves == self.rails)

    def leaf_of(self, node: np.ndarray, port: np.ndarray) -> np.ndarray:
        return node // self.unit_nodes * self.rails + port % self.rails

    def pod_of(self, leaf: np.ndarray) -> np.ndarray:
        return leaf // (self.rails * self.units_per_pod)

    def spine_of(self, leaf: int, lane: int) -> int:
        plane = leaf % self.planes
        return (self.pod_of(leaf) * self.planes + plane) * self.spines_per_pod + lane % self.spines_per_pod

    def core_spine_of(self, pod: int, lane: int) -> int:
        return pod * self.planes * self.spines_per_pod + lane % (self.planes * self.spines_per_pod)

    # -- link table ------------------------------------------------------------------------------------------------

    def blocks(self) -> dict[str, tuple[int, int]]:
        """name -> (first id, count): lanes between leaf and spine, `core_*` between spine and core, their bundles."""
        lanes = self.leaves * self.lanes if self.tiered else 0
        cores = self.pods * self.core_lanes if self.pods > 1 else 0
        sizes = {
            "up": lanes, "down": lanes, "up_bundle": self.leaves if lanes else 0,
            "down_bundle": self.leaves if lanes else 0, "core_up": cores, "core_down": cores,
            "core_up_bundle": self.pods if cores else 0, "core_down_bundle": self.pods if cores else 0,
        }  # fmt: skip
        blocks, first = {}, 0
        for name, count in sizes.items():
            blocks[name] = (first, count)
            first += count
        return blocks

    def __len__(self) -> int:
        return sum(count for _, count in self.blocks().values())

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """bandwidth, latency and kind of every link."""
        bandwidth, kind = np.empty(len(self)), np.empty(len(self), dtype=np.uint8)
        for name, (first, count) in self.blocks().items():
            core, bundle = name.startswith("core"), name.endswith("bundle")
            each = self.core_lane_bandwidth if core else self.lane_bandwidth
            bandwidth[first : first + count] = each * ((self.core_lanes if core else self.lanes) if bundle else 1)
            kind[first : first + count] = KIND["core" if core else "spine"]
        return bandwidth, np.full(len(self), self.latency), kind

    def apply(self, bandwidth: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Bandwidths under factors: a bundle is worth the sum of its lanes, times its own factor."""
        left = bandwidth * factors
        blocks = self.blocks()
        for name in ("up", "down", "core_up", "core_down"):
            (first, count), (bundle, groups) = blocks[name], blocks[f"{name}_bundle"]
            if count and (factors[first : first + count] != 1.0).any():
                lanes = left[first : first + count].reshape(groups, -1).sum(axis=1)
                left[bundle : bundle + groups] = lanes * factors[bundle : bundle + groups]
        return left

    def ends(self, block: str) -> tuple[str, np.ndarray, str, np.ndarray]:
        """Lower tier and its numbers, higher tier and its numbers, of every link of a block, up or down."""
        i = np.arange(self.blocks()[block][1])
        if block.endswith("bundle"):
            return ("pod", i, "cores", i * 0) if block.startswith("core") else ("leaf", i, "spines", i * 0)
        if block.startswith("core"):
            pod, lane = np.divmod(i, self.core_lanes)
            return "spine", self.core_spine_of(pod, lane), "core", lane % self.cores
        leaf, lane = np.divmod(i, self.lanes)
        return "leaf", leaf, "spine", self.spine_of(leaf, lane)

    def names(self, block: str, chosen: np.ndarray) -> list[str]:
        """Names of links of a block, by their positions in it."""
        low_tier, low, high_tier, high = self.ends(block)
        lows = [f"{low_tier}{i}" for i in low[chosen]]
        highs = [high_tier if high_tier.endswith("s") else f"{high_tier}{i}" for i in high[chosen]]
        ends = zip(highs, lows) if "down" in block else zip(lows, highs)
        return [f"{a}->{b}" for a, b in ends]

    def link_name(self, link: int) -> str:
        for block, (first, count) in self.blocks().items():
            if first <= link < first + count:
                return self.names(block, np.array([link - first]))[0]
        raise IndexError(link)

    def find(self, a: str, b: str | None = None) -> list[int]:
        """Ids of the links from a to b, or of all links that touch a when b is None."""
        found = []
        for block, (first, count) in self.blocks().items():
            low_tier, low, high_tier, high = self.ends(block)
            tail, head = (low_tier, low), (high_tier, high)
            if "down" in block:
                tail, head = head, tail
            if b is None:
                match = _is(tail, a, count) | _is(head, a, count)
            else:
                match = _is(tail, a, count) & _is(head, b, count)
            found += (first + np.flatnonzero(match)).tolist()
        return found

    def edges(self) -> list[Edge]:
        """Edges of the graph above the leaves, parallel lanes merged."""
        merged: Counter[tuple[str, str]] = Counter()
        for block, (_, count) in self.blocks().items():
            if not block.endswith("bundle"):
                core = block.startswith("core")
                merged.update((name, core) for name in self.names(block, np.arange(count)))
        edges = []
        for (name, core), lanes in merged.items():
            each = self.core_lane_bandwidth if core else self.lane_bandwidth
            kind = "core" if core else "spine"
            edges.append(Edge(*name.split("->"), kind, each * lanes, self.latency, lanes))
        return edges

    # -- routes ----------------------------------------------------------------------------------------------------

    def table(self, a: np.ndarray, b: np.ndarray, bandwidth: np.ndarray, routing: str, seed: int,
              key: tuple[np.ndarray, np.ndarray], variant: object = None) -> np.ndarray:  # fmt: skip
        """int64[n, 4] of fabric links (up, core up, core down, down) from leaf a to leaf b; -1 where not crossed.

        `bandwidth` is that of the fabric's links under faults; `key` is what a flow's hash is made of.
        """
        table = np.full((len(a), 4), -1, dtype=np.int64)
        blocks = self.blocks()
        far = self.pod_of(a) != self.pod_of(b)
        across = a != b
        if across.any() and not self.tiered:
            raise SimulationError("this network has no spines, so its leaves cannot reach each other")
        if routing == "ideal":
            for column, (name, group) in enumerate((
                ("up_bundle", a), ("core_up_bundle", self.pod_of(a)),
                ("core_down_bundle", self.pod_of(b)), ("down_bundle", b),
            )):  # fmt: skip
                chosen = far if name.startswith("core") else across
                table[chosen, column] = blocks[name][0] + group[chosen]
            return table
        lane_up, lane_core, lane_down = self._hashed(a, b, far, routing, seed, key)
        table[across, 0] = blocks["up"][0] + (a * self.lanes + lane_up)[across]
        table[across, 3] = blocks["down"][0] + (b * self.lanes + lane_down)[across]
        table[far, 1] = blocks["core_up"][0] + (self.pod_of(a) * self.core_lanes + lane_core)[far]
        table[far, 2] = blocks["core_down"][0] + (self.pod_of(b) * self.core_lanes + lane_core)[far]
        dead = np.flatnonzero((np.append(bandwidth, np.inf)[table] <= 0).any(axis=1))
        for row in dead:
            table[row] = self._around(int(a[row]), int(b[row]), bool(far[row]), bandwidth, seed, int(key[0][row]))
        return table

    def _hashed(self, a, b, far, routing, seed, key):
        """Lanes of each flow: one core lane or spine by hash, then lanes that lead to that spine."""
        word = ecmp_hash(seed, *key)
        parallel = self.lanes // self.spines_per_pod
        core = (word % np.uint64(max(1, self.core_lanes))).astype(np.int64)
        plane = a % self.planes
        if self.planes > 1:  # a rail's spines reach the core by lanes of their own
            own = self.planes * self.spines_per_pod
            core = core // own * own + plane * self.spines_per_pod + core % self.spines_per_pod
            core = np.where(core < self.core_lanes, core, plane * self.spines_per_pod)
        spine = np.where(far, core % self.spines_per_pod, (word % np.uint64(self.spines_per_pod)).astype(np.int64))
        up = spine + self.spines_per_pod * (ecmp_hash(word, 1) % np.uint64(parallel)).astype(np.int64)
        down = spine + self.spines_per_pod * (ecmp_hash(word, 2) % np.uint64(parallel)).astype(np.int64)
        return up, core, down

    def _around(self, a: int, b: int, far: bool, bandwidth: np.ndarray, seed: int, key: int) -> list[int]:
        """A way that is alive for one flow whose hashed lane is down; `SimulationError` when there is none."""
        ways = [way for way in self._ways(a, b, far) if all(bandwidth[i] > 0 for i in way if i >= 0)]
        if not ways:
            raise SimulationError(f"leaf{a} cannot reach leaf{b}: every way between them has a link that is down")
        return ways[int(ecmp_hash(seed, key, a, b)) % len(ways)]

    def _ways(self, a: int, b: int, far: bool):
        up, down, s = self.blocks()["up"][0], self.blocks()["down"][0], self.spines_per_pod
        for lane in range(self.lanes):
            for other in range(lane % s, self.lanes, s):
                ends = (up + a * self.lanes + lane, down + b * self.lanes + other)
                if not far:
                    yield [ends[0], -1, -1, ends[1]]
                    continue
                core_up, core_down = self.blocks()["core_up"][0], self.blocks()["core_down"][0]
                first = (a % self.planes) * s + lane % s
                for c in range(first, self.core_lanes, self.planes * s):
                    pods = (self.pod_of(a) * self.core_lanes + c, self.pod_of(b) * self.core_lanes + c)
                    yield [ends[0], core_up + pods[0], core_down + pods[1], ends[1]]


def clos_of(topology: Topology, nodes: int) -> Clos:
    """The fabric that connects this many nodes."""
    network, ports = topology.network, topology.network.switch_ports
    aligned = network.rail_optimised or network.kind == "rail-only"
    rails = min(network.rails, max(1, topology.nic_ports)) if aligned else 1
    units = math.ceil(nodes / network.leaf_nodes)
    leaves = units * rails
    down_ports = network.leaf_nodes * topology.nic_ports / rails
    uplink = down_ports * topology.port_bandwidth / network.oversubscription
    lanes = max(1, math.floor(down_ports / network.oversubscription + 1e-9))
    planes = rails if network.kind == "rail-only" else 1
    if network.pod_nodes:
        units_per_pod = max(1, network.pod_nodes // network.leaf_nodes)
    elif network.kind == "leaf-spine" or leaves // planes <= ports:
        units_per_pod = units
    else:  # three tiers: half of a spine's ports go up
        units_per_pod = max(1, ports // 2 // (rails // planes))
    pods = math.ceil(units / units_per_pod)
    pod_leaves = min(units, units_per_pod) * rails // planes
    spine_down = ports if pods == 1 else max(1, ports // 2)
    spines = min(lanes, max(1, math.ceil(pod_leaves * lanes / spine_down)))
    lanes = max(spines, lanes // spines * spines)  # the same number of lanes to every spine
    pod_uplink = units_per_pod * rails * uplink / network.core_oversubscription
    group = planes * spines
    pod_lanes = units_per_pod * rails * lanes / network.core_oversubscription
    core_lanes = max(1, math.floor(pod_lanes / group + 1e-9)) * group
    links = 2 * (leaves * lanes + (pods * core_lanes if pods > 1 else 0))
    if links > MOST_LINKS:
        many = f"{leaves:,} leaves of {network.leaf_nodes:,} nodes have {links:,} links above them"
        raise TopologyError(f"{topology.name}: network.leaf_nodes: {many}; expected at most {MOST_LINKS:,}")
    return Clos(
        rails=rails,
        unit_nodes=network.leaf_nodes,
        leaves=leaves,
        lanes=lanes,
        lane_bandwidth=uplink / lanes,
        planes=planes,
        pods=pods,
        units_per_pod=units_per_pod,
        spines_per_pod=spines,
        core_lanes=core_lanes if pods > 1 else 0,
        core_lane_bandwidth=pod_uplink / core_lanes,
        cores=max(1, math.ceil(pods * core_lanes / ports)) if pods > 1 else 0,
        latency=network.latency,
    )
