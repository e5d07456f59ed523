"""What llmsim does not model: from a key or a value that names it to a sentence with what is near."""

import re
from typing import NamedTuple


class Outside(NamedTuple):
    """words: as people write them in keys and values. what: the thing. near: what can be done instead."""

    words: tuple[str, ...]
    what: str
    near: str


_INFERENCE = "a run of training is; its forward passes are in `llmsim run --trace`, phase forward"
_SAMPLES = "the update on samples that are there is, as training on their tokens"
# Keep docs/outside.md in step: a test reads its table.
OUTSIDE: tuple[Outside, ...] = (
    Outside(("inference", "infer", "predict", "generate", "generation", "decode", "prefill"), "inference", _INFERENCE),
    Outside(("serving", "serve", "vllm", "sglang", "tensorrt_llm", "requests"), "serving of requests", _INFERENCE),
    Outside(("kv_cache", "kv_cache_dtype", "paged_attention"), "the key/value cache of inference", _INFERENCE),
    Outside(("speculative", "speculative_decoding", "draft_model"), "speculative decoding", _INFERENCE),
    Outside(("rl", "rlhf", "grpo", "ppo", "rloo", "rollout", "rollouts", "reward_model", "actor", "critic"),
            "reinforcement learning with its rollouts", _SAMPLES),
    Outside(("tpu", "tpu_v4", "tpu_v5e", "tpu_v5p", "tpu_v6e", "systolic", "trainium", "gaudi"),
            "kernels of systolic arrays (TPU, Trainium, Gaudi)",
            "GPUs of `llmsim gpus` are; a torus of links is, as network.kind torus"),
    Outside(("diffusion", "unet", "mamba", "ssm", "rwkv", "cnn"), "models that are no transformers",
            "transformers are, dense or with experts, with a vision encoder or without"),
    Outside(("accuracy", "perplexity", "convergence", "loss_curve"), "what a model learns",
            "the loss that a scaling law expects is, in `llmsim budget`"),
)  # fmt: skip


def outside(name: object) -> str | None:
    """`inference is not modelled; …` when the name is of something outside, else None."""
    word = re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_") if isinstance(name, str) else ""
    for entry in OUTSIDE:
        if word in entry.words:
            return f"{entry.what} is not modelled; {entry.near}"
    return None
