"""Does the grid of ranks fit the cluster: product of degrees, GPUs per node, tensor parallelism across nodes."""

from math import gcd

from llmsim.scenario.checks.subject import Found, Subject


def check_gpus_per_node(s: Subject) -> Found:
    used, has = s.scenario.cluster.gpus_per_node, s.topology.node.gpus
    if used and used > has:
        yield "cluster.gpus_per_node", f"{used} is more than the {has} GPUs of a {s.topology.name} node"


def check_network_exists(s: Subject) -> Found:
    nodes = s.scenario.cluster.nodes
    if nodes > 1 and (s.topology.network.kind == "none" or not s.topology.node.nics):
        yield "cluster.nodes", f"{nodes} nodes of {s.topology.name} have no network between them; expected 1"


def check_grid(s: Subject) -> Found:
    p, gpus = s.scenario.parallelism, s.gpus
    nodes = s.scenario.cluster.nodes
    have = f"{gpus} GPUs used ({nodes} {'node' if nodes == 1 else 'nodes'} × {s.gpus_per_node})"
    if p.dp is not None and s.model_parallel * p.dp != gpus:
        product = f"tp {p.tp} × cp {p.cp} × pp {p.pp} × dp {p.dp} = {s.model_parallel * p.dp}"
        fits = gpus // s.model_parallel if gpus % s.model_parallel == 0 else None
        expected = f"expected dp {fits}, or null to derive it" if fits else "expected a product equal to the GPUs"
        yield "parallelism.dp", f"{p.dp} does not fit: {product}, but the cluster has {have}; {expected}"
    elif gpus % s.model_parallel:
        product = f"tp {p.tp} × cp {p.cp} × pp {p.pp} = {s.model_parallel}"
        widest = max((axis for axis in ("tp", "cp", "pp")), key=lambda axis: getattr(p, axis))
        yield (
            f"parallelism.{widest}",
            f"{getattr(p, widest)} does not fit: {product} does not divide the {have}; expected a divisor of {gpus}",
        )


def warn_tensor_across_nodes(s: Subject) -> Found:
    tp = s.scenario.parallelism.tp
    if tp > s.gpus_per_node:
        yield (
            "parallelism.tp",
            f"{tp} spans nodes of {s.gpus_per_node} GPUs; tensor parallelism over the network is slow",
        )
    elif s.gpus > s.gpus_per_node and gcd(tp, s.gpus_per_node) != tp:
        yield "parallelism.tp", f"{tp} does not divide the {s.gpus_per_node} GPUs of a node; some groups span two nodes"


def warn_positions(s: Subject) -> Found:
    length, longest = s.scenario.training.seq_len, s.architecture.max_positions
    if s.architecture.position == "learned" and longest and length > longest:
        yield "training.seq_len", f"{length} is more than the {longest} learned positions of {s.model_name}"
