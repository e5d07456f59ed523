"""Where each key of a scenario was written, so that a complaint can say file and line."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llmsim.documents import spoken


@dataclass(frozen=True)
class Origin:
    """file: as the user named it, None for a mapping from Python. lines: 1-based line of each dotted key."""

    file: str | None = None
    lines: dict[str, int] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)  # dotted keys said outside the file, and where: `--set`

    @property
    def folder(self) -> Path:
        """Where relative paths of the scenario start."""
        return Path(self.file).parent if self.file else Path()

    def sentence(self, key: str, text: str) -> str:
        """`scenarios/a.yaml:12: training.micro_batch: text`."""
        return f"{self._place(key)}{spoken(key)}: {text}"

    def _place(self, key: str) -> str:
        above = key
        while above:
            if above in self.elsewhere:
                return self.elsewhere[above]
            if above in self.lines:
                return f"{self.file}:{self.lines[above]}: "
            above = above.rpartition(".")[0]
        return f"{self.file}: " if self.file else ""

    def with_overrides(self, keys: Iterable[str], place: str) -> "Origin":
        """The same file, with some keys said elsewhere; `place` introduces them in messages."""
        said = dict.fromkeys(keys, place)
        below = tuple(f"{key}." for key in said)
        lines = {key: line for key, line in self.lines.items() if not key.startswith(below)}
        return Origin(self.file, lines, self.elsewhere | said)
