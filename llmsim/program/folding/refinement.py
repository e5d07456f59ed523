"""Symmetry folding: which ranks (and links) behave alike, by colour refinement (1-WL) on ranks, groups and links.

Two ranks stay in one class while they have the same colour to begin with (program, device, faults), meet the same
multiset of classes in every group, the same classes as pipeline neighbours, and cross links of the same classes. The
partition is equitable, so a synchronous simulation of one representative per class equals simulating every rank.
Everything is vectorised over ranks and flows: hashes of 64 bits stand for colours, sums of hashes for multisets.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class FlowSet:
    """Traffic of one kind: entry k says that a flow of `owner[k]` crosses link `link[k]` with `share[k]` of its bytes.

    An owner is a rank, or, when `group` is given, a row of `groups[group]`: the members of a synchronous collective
    share its traffic, so that their places in its ring do not tell them apart.
    """

    owner: np.ndarray
    link: np.ndarray
    share: np.ndarray
    group: int | None = None


def refine(
    ranks: np.ndarray,
    groups: list[np.ndarray],
    neighbours: list[np.ndarray],
    links: np.ndarray,
    flows: list[FlowSet],
    *,
    rounds: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """Classes of ranks and of links.

    ranks: int[n], first colours. groups: arrays int[n_groups, size] of ranks that meet in synchronous collectives.
    neighbours: arrays int[n] naming one other rank each (-1: none), told apart by their place in the list.
    links: int[n_links], first colours. flows: traffic that ties ranks to links.
    Returns int[n] and int[n_links]: class numbers from 0, in order of first appearance.
    """
    colour = mix(ranks.astype(np.uint64), 1)
    link_colour = mix(links.astype(np.uint64), 2)
    count = link_count = -1
    for _ in range(rounds):
        own = [
            mix(mix(colour, 100 + salt)[members].sum(axis=1, dtype=np.uint64), 3) for salt, members in enumerate(groups)
        ]
        met = [np.where(other >= 0, colour[np.maximum(other, 0)], np.uint64(7)) for other in neighbours]
        crossed = [np.zeros_like(part) for part in own]
        crossed_alone = np.zeros_like(colour)
        crossing = np.zeros_like(link_colour)
        for salt, flow in enumerate(flows):
            source, target = (colour, crossed_alone) if flow.group is None else (own[flow.group], crossed[flow.group])
            weight = mix(np.round(flow.share * 2**20).astype(np.uint64), 4)
            np.add.at(target, flow.owner, mix(link_colour[flow.link] ^ weight, 400 + salt))
            np.add.at(crossing, flow.link, mix(source[flow.owner] ^ weight, 500 + salt))
        new = mix(colour + mix(crossed_alone, 5), 6)
        for salt, part in enumerate(met):
            new = mix(new + mix(part, 300 + salt), 6)
        for salt, members in enumerate(groups):
            spread = np.zeros_like(colour)
            spread[members.ravel()] = np.repeat(mix(own[salt] + mix(crossed[salt], 7), 200 + salt), members.shape[1])
            new = mix(new + mix(spread, 600 + salt), 6)
        new_link = mix(mix(crossing, 8) + link_colour, 9)
        new_count, new_link_count = len(np.unique(new)), len(np.unique(new_link))
        if new_count == count and new_link_count == link_count:
            break
        colour, link_colour, count, link_count = new, new_link, new_count, new_link_count
    return _number(colour), _number(link_colour)


def mix(values: np.ndarray, salt: int) -> np.ndarray:
    """splitmix64 of each value (Steele, Lea & Flood 2014), salted."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x1234567) & 0xFFFFFFFFFFFFFFFF)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _number(colours: np.ndarray) -> np.ndarray:
    """Class numbers in order of first appearance, so that results do not depend on hash values."""
    _, first, inverse = np.unique(colours, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[inverse.ravel()]
