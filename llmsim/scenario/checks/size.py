"""What would take hours and all of the memory to play: refused at once, since it is a slip of the keyboard."""

from __future__ import annotations

from llmsim.scenario.checks.subject import Found, Subject

MOST_WORK = 200_000  # units of a pass in block detail: some 100 us and 9 kB each, 20 s and 2 GB in all
_LAYER = 2  # units of a layer's kernels in a pass in kernel detail: some 130 us and 25 kB


def check_size(s: Subject) -> Found:
    """Passes of all stages and iterations; kernels of layers count, and without folding all ranks of a stage."""
    p, simulation, layers = s.scenario.parallelism, s.scenario.simulation, s.architecture.layers
    stages = p.pp * p.vpp
    passes = s.micro_batches * stages * simulation.iterations
    parts, ways = [f"{s.micro_batches:,} micro-batches × {stages} stages"], []
    if simulation.iterations > 1:
        parts.append(f"{simulation.iterations} iterations")
    work = passes
    if simulation.detail == "kernel":
        work = passes + _LAYER * s.micro_batches * layers * simulation.iterations
        ways.append("simulation.detail block")
    if simulation.fold == "off":
        work *= s.gpus // p.pp
        parts.append(f"{s.gpus // p.pp} ranks of a stage")
        ways.append("simulation.fold auto")
    if work <= MOST_WORK:
        return
    if simulation.detail == "kernel":
        parts.append(f"kernels of {layers:,} layers")
    ways.append("a larger micro_batch, more data-parallel ranks or a smaller batch")
    yield (
        "training.global_batch",
        f"{s.scenario.training.global_batch} makes {' × '.join(parts)}, the work of {work:,} passes; expected at most "
        f"{MOST_WORK:,}, with {' or '.join(ways)}",
    )
