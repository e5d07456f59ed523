"""How far the collective model is from published measurements, in sample and with one source left out."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import groupby

from llmsim.catalogue.collective_constants import Achieved
from llmsim.collectives.group import ARCHITECTURES
from llmsim.collectives.plan import plan_collective
from llmsim.evidence.measured.collective_fit import Fit, Sample, pooled
from llmsim.evidence.measured.collectives import measured_rows, row_algorithm, row_group, row_operation

MIB = 2**20
SIZE_CLASSES = ("below 1 MiB", "1-32 MiB", "above 32 MiB")


def size_class(size: float) -> str:
    return SIZE_CLASSES[0 if size < MIB else 1 if size <= 32 * MIB else 2]


def _source(row: dict) -> str:
    """The document; of collections of many systems, the system."""
    return row["source"].split(":")[0] + " " + row["gpu"]


@lru_cache(maxsize=4)
def measured_samples(path: str | None = None) -> tuple[tuple[dict, Sample], ...]:
    """(row, sample) of every healthy row."""
    return tuple(
        (
            row,
            Sample(
                row_operation(row),
                float(row["size_bytes"]),
                row_group(row),
                float(row["time_us_oop"]) * 1e-6,
                _source(row),
                row_algorithm(row),
            ),
        )
        for row in measured_rows(path)
    )


def relative_errors(samples: Iterable[Sample]) -> list[float]:
    """model / measured - 1 of each sample."""
    return [plan_collective(s.operation, s.size, s.group, s.algorithm).seconds / s.time - 1 for s in samples]


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between order statistics, as numpy's default."""
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _summary(labels: dict, errors: list[float]) -> dict:
    absolute = sorted(map(abs, errors))
    return {
        **labels,
        "n": len(errors),
        "median": _quantile(absolute, 0.5),
        "p90": _quantile(absolute, 0.9),
        "worst": absolute[-1],
        "bias": _quantile(sorted(errors), 0.5),
    }


def _by(
    name: str, key: Callable[[dict], str], errors: list[tuple[dict, float]], order: Sequence[str] = ()
) -> list[dict]:
    ranked = sorted(errors, key=lambda item: (order.index(key(item[0])) if order else 0, key(item[0])))
    return [
        _summary({"by": name, "value": value}, [e for _, e in items])
        for value, items in groupby(ranked, key=lambda item: key(item[0]))
    ]


def accuracy_table(path: str | None = None) -> list[dict]:
    """Rows by, value, n, median, p90, worst, bias (fractions of the measured time).

    By size class, GPU generation, GPU and collective; all but the first count messages of 1 MiB and more. `path`:
    another table with the same columns.
    """
    pairs = measured_samples(path)
    errors = list(zip((row for row, _ in pairs), relative_errors(sample for _, sample in pairs)))
    large = [(row, e) for row, e in errors if float(row["size_bytes"]) >= MIB]
    return [
        *_by("size", lambda row: size_class(float(row["size_bytes"])), errors, SIZE_CLASSES),
        *_by("generation", lambda row: row_group(row).architecture, large, ARCHITECTURES),
        *_by("gpu", lambda row: row["gpu"].rstrip("?"), large),
        *_by("collective", lambda row: row["collective"], large),
    ]


def leave_one_source_out(path: str | None = None, rounds: int = 5, workers: int = 1) -> list[dict]:
    """The size classes again, each source predicted with constants fitted to the other sources only.

    The fit starts from the geometric means over architectures and fabrics, so that nothing of a source that alone
    knows an architecture or a fabric leaks into its prediction. A row per source follows the size classes.
    """
    pairs = measured_samples(path)
    sources = sorted({sample.source for _, sample in pairs})
    shares = [sources[k::workers] for k in range(workers)]
    fitted: dict[str, dict] = {}
    if workers == 1:
        fitted = _fit_without(path, shares[0], rounds)
    else:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(workers) as pool:
            for part in pool.map(_fit_without, [path] * workers, shares, [rounds] * workers):
                fitted |= part
    errors: list[tuple[dict, float]] = []
    for source in sources:
        held = [(row, s) for row, s in pairs if s.source == source]
        others = Achieved.of(fitted[source])
        errors.extend(zip((row for row, _ in held), relative_errors(s.under(others) for _, s in held)))
    return [
        *_by("size", lambda row: size_class(float(row["size_bytes"])), errors, SIZE_CLASSES),
        *_by("source", _source, errors),
    ]


def _fit_without(path: str | None, sources: Sequence[str], rounds: int) -> dict[str, dict]:
    """Constants fitted without each of the sources, from pooled ones."""
    model = Fit([sample for _, sample in measured_samples(path)], start=pooled())
    return {source: model.run(source, rounds) for source in sources}
