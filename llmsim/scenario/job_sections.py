"""The section `job` of a scenario: how long the job is, what fails, how it is saved, restarted and repaired."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from llmsim.catalogue.failures import fleets
from llmsim.errors import nearest
from llmsim.scenario.fields import Flag, Seconds, choice, empty_when_null, quantity, refuse, show, whole

Mtbf = quantity("time", 1.0, 1e14, open_end=False)  # of one part: to three million years
Share = quantity("number", 0.0, 1.0, open_end=False)
_NEVER = ("never", "inf", ".inf", float("inf"))


class JobPart(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


@dataclass(frozen=True)
class LogNormal:
    """A time that varies: its median (s), and the standard deviation of its logarithm; 0: it never varies."""

    median: float
    sigma: float = 0.0


@dataclass(frozen=True)
class Every:
    """An interval in iterations."""

    iterations: int


_SECONDS = TypeAdapter(Seconds)
_SIGMA = TypeAdapter(quantity("number", 0.0, 10.0, open_end=False))
_COUNT = TypeAdapter(whole(1, 10**9))


def _read(adapter: TypeAdapter, value: object, also: str = "", key: str = "") -> Any:
    """The value, or its own refusal, with what else would be accepted."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        text = error.errors()[0]["msg"]
        raise refuse((f"{key}: " if key else "") + text + (f"; also {also}" if also else "")) from None


def _mapping(value: Mapping[str, object], **readers: TypeAdapter) -> dict[str, Any]:
    """The values of a small mapping, all of whose keys are needed."""
    if set(value) != set(readers):
        raise refuse(f"{show(dict(value))} does not have the keys {', '.join(readers)} and no others")
    return {key: _read(reader, value[key], key=key) for key, reader in readers.items()}


def varying(auto: bool = False, never: bool = False) -> Any:
    """Seconds, a log-normal time, and where they make sense `auto` and `never` (None)."""
    also = ", ".join([*(["auto"] if auto else []), *(["never"] if never else []), "or {median: 4 min, sigma: 1.2}"])

    def read(value: object) -> LogNormal | str | None:
        if auto and (value == "auto" or value is None):
            return "auto"
        if never and (value is None or value in _NEVER):
            return None
        if isinstance(value, LogNormal):
            return value
        if isinstance(value, Mapping):
            return LogNormal(**_mapping(value, median=_SECONDS, sigma=_SIGMA))
        return LogNormal(_read(_SECONDS, value, also))

    return Annotated[Any, BeforeValidator(read)]


def auto_or(kind: Any) -> Any:
    """`auto` (None too), or a value of this kind."""
    adapter = TypeAdapter(kind)

    def read(value: object) -> object:
        if value is None or value == "auto":
            return "auto"
        return _read(adapter, value, "auto")

    return Annotated[Any, BeforeValidator(read)]


def _preset(value: object) -> object:
    if value is None or (isinstance(value, str) and value in fleets()):
        return value
    hint = nearest(value, fleets()) if isinstance(value, str) else ""
    raise refuse(f"{show(value)} is no fleet; expected one of {', '.join(fleets())}{hint}")


def _gaps(value: object) -> object:
    """Times between failures, or the path of a CSV file that has them in a column `hours`."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list | tuple) or not value:
        raise refuse(f"{show(value)} is not a list; expected times such as [3 h, 20 min], or a CSV file")
    return tuple(_read(_SECONDS, item) for item in value)


class SlowGpu(JobPart):
    """GPUs that go on at a `factor` of their speed until they are `found` and swapped. mtbf: of one GPU."""

    mtbf: Mtbf | None = None
    factor: auto_or(quantity("number", 0.01, 1.0, open_end=False)) = "auto"
    found: varying(auto=True) = "auto"


class Flap(JobPart):
    """Links of NICs that have a `factor` of their bandwidth for a `time`. mtbf: of one link."""

    mtbf: Mtbf | None = None
    factor: auto_or(quantity("number", 0.001, 1.0, open_end=False)) = "auto"
    time: auto_or(Seconds) = "auto"


class RepeatOffenders(JobPart):
    """A `share` of the nodes fails `factor` times as often as the others, until it was replaced."""

    share: Share = 0.0
    factor: quantity("number", 1.0, 1e4, open_end=False) = 10.0
    exclude_after: whole(1, 10**6) | None = None


class FailuresSection(JobPart):
    """Mean times between failures of one part of each class; job_mtbf: of the whole job, in place of the others."""

    preset: Annotated[str | None, BeforeValidator(_preset)] = None
    gpu_mtbf: Mtbf | None = None
    node_mtbf: Mtbf | None = None
    nic_mtbf: Mtbf | None = None
    link_mtbf: Mtbf | None = None
    switch_mtbf: Mtbf | None = None
    software_mtbf: Mtbf | None = None
    sdc_mtbf: Mtbf | None = None
    planned_mtbf: Mtbf | None = None
    job_mtbf: Mtbf | None = None
    gaps: Annotated[Any, BeforeValidator(_gaps)] = None
    shape: quantity("number", 0.1, 20.0, open_end=False) = 1.0
    burn_in: Seconds = 0.0
    slow_gpu: Annotated[SlowGpu, empty_when_null()] = SlowGpu()
    flap: Annotated[Flap, empty_when_null()] = Flap()
    repeat: Annotated[RepeatOffenders, empty_when_null()] = RepeatOffenders()
    sdc_found: varying(auto=True) = "auto"


def _interval(value: object) -> object:
    if value is None or value == "auto":
        return "auto"
    if isinstance(value, Every):
        return value
    if isinstance(value, Mapping):
        return Every(**_mapping(value, iterations=_COUNT))
    seconds = _read(_SECONDS, value, "{iterations: 100} or auto")
    if seconds <= 0:
        raise refuse(f"{show(value)} is too small; expected more than 0 s, {{iterations: 100}} or auto")
    return seconds


class CheckpointSection(JobPart):
    """How the job is saved. stall: seconds that training stands still for one save."""

    interval: Annotated[Any, BeforeValidator(_interval)] = "auto"
    mode: choice("sync", "async", "memory") = "sync"
    stall: auto_or(Seconds) = "auto"
    bytes_per_parameter: auto_or(quantity("number", 0.0, 1000.0)) = "auto"
    bandwidth: auto_or(quantity("bandwidth", 1e3, 1e16, open_end=False)) = "auto"
    read_bandwidth: auto_or(quantity("bandwidth", 1e3, 1e16, open_end=False)) = "auto"
    network: choice("shared", "separate") = "shared"
    storage_every: whole(1, 10**6) = 1
    keep: whole(1, 10**6) | None = None


class RecoverySection(JobPart):
    """From a failure until training goes on, seconds of each part."""

    detect: varying(auto=True) = "auto"
    diagnose: auto_or(Seconds) = "auto"
    restart: varying(auto=True) = "auto"
    load: auto_or(Seconds) = "auto"
    warm_up: Seconds = 0.0


class SparesSection(JobPart):
    """Nodes that stand by, and how nodes come back."""

    nodes: whole(0, 10**6) = 0
    swap: Seconds = 300.0
    repair: varying(never=True) = LogNormal(86400.0)
    switch_repair: varying(never=True) = LogNormal(14400.0)


class ElasticSection(JobPart):
    """Whether the job goes on with fewer replicas until nodes are back."""

    enabled: Flag = False
    fewest: whole(1, 10**6) | None = None
    batch: choice("keep", "shrink") = "keep"
    rejoin: auto_or(Seconds) = "auto"


def _elastic(value: object) -> object:
    """true or false alone, or the section, which means true."""
    if isinstance(value, Mapping):
        return {"enabled": True} | dict(value)
    return value if isinstance(value, ElasticSection) else {"enabled": False if value is None else value}


class JobSection(JobPart):
    """The whole job. iterations: None: as `training.tokens` says."""

    iterations: whole(1, 10**9) | None = None
    failures: Annotated[FailuresSection, empty_when_null()] = FailuresSection()
    checkpoint: Annotated[CheckpointSection, empty_when_null()] = CheckpointSection()
    recovery: Annotated[RecoverySection, empty_when_null()] = RecoverySection()
    spares: Annotated[SparesSection, empty_when_null()] = SparesSection()
    elastic: Annotated[ElasticSection, BeforeValidator(_elastic)] = ElasticSection()
    variation: quantity("number", 0.0, 1.0, open_end=False) = 0.0
