"""How much of the GPUs' work is moving bytes, and how much is arithmetic."""

from collections import Counter

from llmsim.engine.plan import Fragment
from llmsim.program.passes.op_costs import resources_of
from llmsim.program.program import Program


def memory_bound_share(program: Program, peak: float, bandwidth: float) -> float:
    """Share of the GPUs' computing that HBM bandwidth bounds, 0..1.

    peak: FLOP/s and bandwidth: bytes/s of one GPU. Arithmetic needs FLOPs over peak and traffic needs bytes over
    bandwidth; kernels are bound by one or the other, so the two shares say which of them the time belongs to.
    """
    flops, seconds = 0.0, 0.0
    for lane in program.plan.lanes:
        if lane.name not in ("compute", "beside"):
            continue
        ranks = float(program.classes.count[lane.owner])
        hbm = resources_of(lane.owner)[1]
        runs = Counter(id(item.fragment.ops) for item in lane.items if item.fragment.ops)
        distinct = {id(item.fragment.ops): item.fragment for item in lane.items if item.fragment.ops}
        for key, fragment in distinct.items():
            own_flops, own_bytes = _demand(fragment, program, hbm)
            flops += runs[key] * ranks * own_flops
            seconds += runs[key] * ranks * own_bytes / bandwidth
    arithmetic = flops / peak
    return seconds / (arithmetic + seconds) if seconds > 0 else 0.0


def _demand(fragment: Fragment, program: Program, hbm: int) -> tuple[float, float]:
    """FLOPs and HBM bytes of one run of a fragment."""
    flops = sum(program.labels[op.label].flops for op in fragment.ops)
    moved = sum(
        part.repeat * part.seconds * amount
        for op in fragment.ops
        for part in op.parts
        for resource, amount in part.demands
        if resource == hbm
    )
    return flops, moved
