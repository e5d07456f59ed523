"""What would take a day and all of the memory to play: refused at once, since it is a slip of the keyboard."""

from __future__ import annotations

from llmsim.scenario.subject import Found, Subject

_PASSES = 1_000_000  # a minute or two and some 5 GB in block detail


def check_size(s: Subject) -> Found:
    """Forward passes of all stages and iterations; folding makes them independent of data parallelism."""
    p, simulation = s.scenario.parallelism, s.scenario.simulation
    passes = s.micro_batches * p.pp * p.vpp * simulation.iterations
    if passes > _PASSES:
        each = f"{s.micro_batches:,} micro-batches × {p.pp * p.vpp} stages"
        times = f" × {simulation.iterations} iterations" if simulation.iterations > 1 else ""
        yield (
            "training.global_batch",
            f"{s.scenario.training.global_batch} makes {each}{times} = {passes:,} passes to simulate; "
            f"expected at most {_PASSES:,}, with a larger micro_batch, more data-parallel ranks or a smaller batch",
        )
