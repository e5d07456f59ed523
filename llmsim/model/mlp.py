"""The dense MLP on one rank: up (and gate) projection, activation, down projection."""

from math import ceil

from llmsim.model import traffic
from llmsim.model.architecture import Architecture
from llmsim.model.exchange import column_entry, row_exit, whole
from llmsim.model.operators import Linear, Operator, elementwise, rerun
from llmsim.model.shard import Shard


def mlp_chain(
    arch: Architecture, shard: Shard, width: int, prefix: str = "", entry: bool = True, leave: bool = True
) -> list[Operator]:
    """Operators of an MLP `width` wide, split over tp. Gate and up are one GEMM of twice the width.

    `entry`/`leave` false leave out the exchange at that end, where another operator has it already. With the prefix
    "shared_" it is the shared experts of a layer, a module of its own to recompute.
    """
    local = ceil(width / shard.tp)
    up = local * (arch.mlp_matrices - 1)
    rows = whole(shard.tokens)
    chain: list[Operator] = [
        Linear(
            f"{prefix}fc1", rows, up, arch.hidden, shard, shard.precision,
            cast=traffic.narrow_cast(shard, shard.local_tokens * arch.hidden, fused=True),
            cast_grad=traffic.narrow_cast(shard, shard.tokens * up, fused=True),
            **(column_entry(shard, arch.hidden) if entry else {}),
        ),
        elementwise(f"{prefix}activation", *traffic.activation(arch, shard, shard.tokens, local)),
        Linear(
            f"{prefix}fc2", rows, arch.hidden, local, shard, shard.precision,
            cast=traffic.narrow_cast(shard, shard.tokens * local, fused=True),
            cast_grad=traffic.narrow_cast(shard, shard.local_tokens * arch.hidden),
            **(row_exit(shard, arch.hidden) if leave else {}),
        ),
    ]  # fmt: skip
    return [*chain, *rerun(shard, "shared_experts" if prefix else "mlp", chain)]
