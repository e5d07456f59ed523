"""The data set behind a run: how many bytes, how fast they are read, how long one pass over it takes."""

from typing import TYPE_CHECKING, Any

from llmsim.catalogue.datasets import dataset

if TYPE_CHECKING:
    from llmsim.scenario import Scenario


def dataset_tokens(scenario: "Scenario") -> float | None:
    """Tokens of one epoch: data.dataset_tokens, or those of the named corpus."""
    data = scenario.data
    if data.dataset_tokens is None and data.dataset is not None:
        return dataset(data.dataset).tokens
    return data.dataset_tokens


def training_tokens(scenario: "Scenario") -> float | None:
    """Tokens of the whole run: training.tokens, or the epochs of the data set."""
    if scenario.training.tokens is not None:
        return scenario.training.tokens
    once = dataset_tokens(scenario)
    return None if once is None else once * scenario.data.epochs


def data_metrics(scenario: "Scenario", tokens_per_s: float, stalled: float) -> dict[str, Any]:
    """`data`: what the run reads. stalled: share of the iteration in which GPUs wait for data.

    epoch_s is the time to pass over the data set once; epochs how often `training.tokens` passes over it.
    """
    once, total = dataset_tokens(scenario), training_tokens(scenario)
    if once is None and scenario.data.storage is None:
        return {}
    result: dict[str, Any] = {
        "read_bytes_per_s": tokens_per_s * scenario.data.bytes_per_token,
        "stalled_share": stalled,
    }
    if once is not None:
        result |= {
            "dataset_tokens": once,
            "dataset_bytes": once * scenario.data.bytes_per_token,
            "epoch_s": once / tokens_per_s,
            "epochs": total / once,
        }
    return {"data": result}
