"""The nccl-tests view of a group: a sweep over sizes as rows of plain values."""

from collections.abc import Iterable

from llmsim.collectives.group import Group
from llmsim.collectives.plan import plan_collective
from llmsim.errors import UnitError
from llmsim.units import parse_quantity


def sizes(text: str) -> list[int]:
    """Bytes of a range `1MiB-8GiB` (doubling from its start to its end), a list `1MiB,48MiB`, or one size.

    Raises `UnitError` for what is none of these.
    """
    if not isinstance(text, str) or not text.strip():
        raise UnitError(f"{text!r} is not a size; write it like '1MiB-8GiB', '1MiB,48MiB' or '256MiB'")
    found: list[int] = []
    for part in text.split(","):
        ends = [_bytes(end, text) for end in part.split("-")]
        if len(ends) > 2:
            raise UnitError(f"{text!r} is not a range of sizes; write it like '1MiB-8GiB'")
        size, last = ends[0], ends[-1]
        if last < size:
            raise UnitError(f"{text!r} runs backwards; write the smaller size first, like '1MiB-8GiB'")
        while size <= last:
            found.append(size)
            size *= 2
    return found


def _bytes(text: str, whole: str) -> int:
    if not text.strip():
        raise UnitError(f"{whole!r} lacks a size; write it like '1MiB-8GiB'")
    try:
        value = parse_quantity(text, "bytes")
    except UnitError:
        hint = "write sizes like '1MiB-8GiB' or '64KB,1MB'"
        raise UnitError(f"{text.strip()!r} in {whole!r} is no size; {hint}") from None
    if value < 1:
        raise UnitError(f"{text.strip()!r} in {whole!r} is no size; expected at least 1 byte")
    return round(value)


def size_table(
    operation: str, message_sizes: Iterable[float], group: Group, algorithm: str = "auto", protocol: str = "auto"
) -> list[dict]:
    """One row a size: size (bytes), time (s), algbw and busbw (bytes/s), algorithm, protocol, channels, steps."""
    rows = []
    for size in message_sizes:
        plan = plan_collective(operation, size, group, algorithm, protocol)
        rows.append(
            {
                "operation": operation,
                "size": size,
                "time": plan.seconds,
                "algbw": plan.algbw,
                "busbw": plan.busbw,
                "algorithm": plan.algorithm,
                "protocol": plan.protocol,
                "channels": plan.channels,
                "steps": sum(p.repeat for p in plan.phases if p.seconds),
            }
        )
    return rows
