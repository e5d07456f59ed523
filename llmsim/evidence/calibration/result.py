"""What a calibration found: constants before and after, how well each is determined, and the errors it leaves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmsim.evidence.calibration.estimate import Estimate
from llmsim.files import write_text


@dataclass(frozen=True, slots=True)
class Constant:
    """`path` is where the constant stands in a calibration file; value and catalogue are factors or SI values."""

    path: tuple[str, ...]
    catalogue: float
    value: float
    deviation: float
    verdict: str


@dataclass(frozen=True)
class Calibration:
    """One fit. before, after: errors of the measurements (predicted over measured, minus one). left_out: in words."""

    source: str
    what: str  # what was measured, in words
    constants: tuple[Constant, ...]
    before: np.ndarray
    after: np.ndarray
    left_out: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Measurements and errors in one sentence."""
        old, new = (100 * float(np.median(np.abs(errors))) for errors in (self.before, self.after))
        errors = f"median |error| {old:.1f} % with the catalogue, {new:.1f} % calibrated"
        left_out = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{len(self.after)} {self.what}: {errors}{left_out}"

    def record(self) -> dict:
        """Plain values, for --json."""
        names = ("catalogue", "value", "deviation", "verdict")
        return {
            "source": self.source,
            "measurements": len(self.after),
            "median_error_before": float(np.median(np.abs(self.before))),
            "median_error_after": float(np.median(np.abs(self.after))),
            "left_out": list(self.left_out),
            "constants": [{"path": ".".join(c.path)} | {n: getattr(c, n) for n in names} for c in self.constants],
        }

    def write(self, path: str | Path) -> None:
        """A calibration file with the constants that the measurements determine at least roughly."""
        sections: dict[str, dict] = {}
        for constant in self.constants:
            if constant.verdict != "not determined":
                section = sections.setdefault(constant.path[0], {})
                if constant.path[0] == "kernels":
                    section = section.setdefault(constant.path[1], {})
                name = constant.path[-1] if constant.path[0] != "collectives" else ".".join(constant.path[1:])
                section[name] = float(f"{constant.value:.4g}")
        import yaml

        body = yaml.safe_dump(sections, sort_keys=False) if sections else "{}\n"
        write_text(f"# llmsim calibrate {self.source}\n# {self.sentence}\n{body}", path)


def constant(path: tuple[str, ...], found: Estimate, catalogue: float = 1.0) -> Constant:
    """The constant of an estimated factor on `catalogue`."""
    return Constant(path, catalogue, catalogue * found.factor, found.deviation, found.verdict)


def order(constants: Sequence[Constant]) -> tuple[Constant, ...]:
    """Best determined first."""
    return tuple(sorted(constants, key=lambda c: c.deviation))
