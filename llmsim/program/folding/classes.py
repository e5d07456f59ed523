"""Folds ranks and links into classes that behave alike, and says what each class's traffic loads."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmsim.cluster.cluster import Cluster
from llmsim.cluster.traffic import Traffic
from llmsim.program.folding.refinement import FlowSet, refine
from llmsim.program.passes.op_costs import resources_of


@dataclass(frozen=True)
class RankClasses:
    """`of_rank` int[ranks] and `of_link` int[links] number the classes; representatives are first members."""

    of_rank: np.ndarray
    representative: np.ndarray
    count: np.ndarray
    of_link: np.ndarray
    link_representative: np.ndarray

    def link_resource(self, link_class: int) -> int:
        """The resource of a link class; ranks' SMs and HBM come first."""
        return resources_of(len(self.count))[0] + link_class


def fold(
    first: np.ndarray,
    traffic: Mapping[str, Traffic],
    neighbours: list[np.ndarray],
    cluster: Cluster,
    link_marks: np.ndarray,
    enabled: bool,
) -> RankClasses:
    """Classes of ranks. `first`: int[ranks], what tells ranks apart from the start (program, device, faults).

    neighbours: int[ranks] each, the pipeline neighbours. link_marks: int[links], what tells links apart besides.
    """
    links = cluster.links
    if not enabled:
        of_rank, of_link = np.arange(len(first)), np.arange(len(links))
    else:
        link_colour = np.zeros(len(links), dtype=np.int64)
        for column in (links.kind, links.bandwidth, link_marks):  # rows would be sorted far more slowly
            values, code = np.unique(column, return_inverse=True)
            link_colour = link_colour * len(values) + code
        groups, flows = [], []
        for entry in traffic.values():
            group = None
            if not entry.alone:
                group = len(groups)
                groups.append(entry.members)
            for part in (entry.intra, entry.inter):
                owner = part.rank if group is None else entry.group_of[part.rank]
                flows.append(FlowSet(owner, part.link, part.share, group))
        of_rank, of_link = refine(first, groups, neighbours, link_colour, flows)
    _, representative, count = np.unique(of_rank, return_index=True, return_counts=True)
    _, link_representative = np.unique(of_link, return_index=True)
    return RankClasses(of_rank, representative, count, of_link, link_representative)
