"""Finished runs on disk, one JSON line each, so that a sweep killed at any moment goes on where it was.

Lines are only ever appended, each by one write; a file with other lines is refused, not overwritten. A line cut short
by a kill is dropped when the journal is opened again; its run counts as not finished. After the last run a closing line
says that the sweep is complete.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llmsim.errors import UserError
from llmsim.studies.sweep.outcome import STATUSES, Row

_COMPLETE = {"complete": True}
_END = ""  # stands for the key of the closing line


class Journal:
    """Rows by key. Only the places of lines are held in memory, not the rows."""

    def __init__(self, path: Path, resume: bool) -> None:
        """Raises `UserError` when runs of an interrupted sweep would be lost, or another process is writing."""
        self.path = path
        self._where: dict[str, int] = {}
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115  closed by close()
        except OSError as wrong:
            raise UserError(f"{path}: the journal of the sweep cannot be written: {wrong.strerror}") from None
        self._lock()
        complete, end = self._index()
        if not resume and self._where and not complete:
            self.close()
            raise UserError(
                f"{path}: {len(self._where)} finished runs of an interrupted sweep are here; "
                "go on with --resume (resume=True), or delete the file"
            )
        if not resume:
            self._where.clear()
            end = 0
        self._file.truncate(end)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add(self, key: str, row: Row) -> None:
        """Remember a finished run; once this returns, a kill of this process cannot lose it."""
        self._where[key] = self._file.seek(0, os.SEEK_END)
        self._write({"key": key, "row": row})

    def finish(self) -> None:
        """Every run is here and the table is written: the next sweep may start afresh."""
        self._write(_COMPLETE)
        os.fsync(self._file.fileno())

    def row(self, key: str) -> Row:
        self._file.seek(self._where[key])
        return json.loads(_line(self._file))["row"]

    def close(self) -> None:
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, default=_plain).encode() + b"\n"
        try:
            whole = self._file.write(line) == len(line)
            reason = "No space left on device"
        except OSError as wrong:
            whole, reason = False, wrong.strerror
        if not whole:
            raise UserError(f"{self.path}: the journal of the sweep cannot be written: {reason}")

    def _index(self) -> tuple[bool, int]:
        """Whether the sweep was complete, and where the last whole line ends."""
        complete, end = False, 0
        for start, line in _lines(self.path):
            key = _key_of(line)
            if key is None:
                self.close()
                number = 1 + len(self._where)
                raise UserError(
                    f"{self.path}: what follows its first {len(self._where)} runs was written by no sweep "
                    f"(near line {number}); delete the file, or choose another name for the sweep"
                )
            complete = key == _END
            if not complete:
                self._where[key] = start
            end = start + len(line)
        return complete, end

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: two sweeps into one file are not noticed
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise UserError(f"{self.path}: another sweep is writing here; wait for it or choose another name") from None


def _key_of(line: bytes) -> str | None:
    """The key of a line's run, `_END` of the closing one; None for what no sweep has written."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if entry == _COMPLETE:
        return _END
    good = isinstance(entry, dict) and isinstance(entry.get("key"), str) and isinstance(entry.get("row"), dict)
    return entry["key"] if good and entry["key"] and entry["row"].get("status") in STATUSES else None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, line with its end) of every whole line."""
    with open(path, "rb") as file:
        start = 0
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield start, line
            start += len(line)


def _line(file: Any) -> bytes:
    """One line of an unbuffered file from where it stands."""
    parts = []
    while True:
        part = file.read(1 << 16)
        cut = part.find(b"\n")
        parts.append(part if cut < 0 else part[:cut])
        if cut >= 0 or not part:
            return b"".join(parts)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
