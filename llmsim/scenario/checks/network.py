"""Where ranks sit and what else is on the network: targets exist, every GPU holds one rank."""

from llmsim.cluster.cluster_of import cluster_of
from llmsim.errors import UserError
from llmsim.scenario.checks.subject import Found, Subject


def check_rank_map(s: Subject) -> Found:
    given = s.scenario.cluster.rank_map
    if given is None or given == "round-robin":
        return
    if len(given) != s.gpus:
        yield "cluster.rank_map", f"has {len(given)} entries; expected the GPU of each of the {s.gpus} ranks"
    elif sorted(given) != list(range(s.gpus)):
        wrong = next((n for n in given if n >= s.gpus or given.count(n) > 1), given[0])
        reason = "is no GPU of this cluster" if wrong >= s.gpus else "holds several ranks"
        yield "cluster.rank_map", f"GPU {wrong} {reason}; expected each of 0 to {s.gpus - 1} once"


def check_background(s: Subject) -> Found:
    if not s.scenario.background:
        return
    cluster = cluster_of(s.topology, s.scenario.cluster.nodes, s.scenario.cluster.gpus_per_node)
    for position, entry in enumerate(s.scenario.background):
        ends = {}
        for name in ("source", "target"):
            key, place = f"background.{position}.{'from' if name == 'source' else 'to'}", getattr(entry, name)
            try:
                ends[name] = set(cluster.node_of(cluster.gpus_at(place)).tolist())
            except UserError as error:
                yield key, str(error)
        if len(ends) == 2 and ends["source"] == ends["target"]:
            yield f"background.{position}.to", f"{entry.target!r} is on the node that the traffic comes from"
