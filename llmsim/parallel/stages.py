"""Which layers each virtual pipeline stage holds."""

from collections.abc import Sequence

from llmsim.errors import ScenarioError


def split_layers(layers: int, stages: int, given: Sequence[int] | None = None) -> tuple[tuple[int, ...], ...]:
    """Layer numbers of each virtual stage, in order: `given` counts, or equal ones.

    Raises `ScenarioError` when the layers do not fit the stages.
    """
    counts = list(given) if given is not None else [layers // stages] * stages
    if len(counts) != stages:
        raise ScenarioError(f"stage_layers has {len(counts)} entries; expected one for each of {stages} virtual stages")
    if sum(counts) != layers:
        raise ScenarioError(
            f"{layers} layers cannot be split over {stages} stages as {counts}; the sum must be {layers}"
        )
    result, first = [], 0
    for count in counts:
        result.append(tuple(range(first, first + count)))
        first += count
    return tuple(result)
