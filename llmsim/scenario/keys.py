"""The keys of a scenario file, and nothing else: the sections, and what each top-level value may be."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from llmsim.scenario.fields import Text, empty_when_null, refuse, show
from llmsim.scenario.job_sections import JobSection
from llmsim.scenario.sections import (
    Background,
    ClusterSection,
    DataSection,
    EconomicsSection,
    Fault,
    ParallelismSection,
    Section,
    SimulationSection,
    TrainingSection,
)


def _model(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str) and value.strip():
        return value
    expected = "a catalogue name such as llama2-7b, the path of a Hugging Face config.json, or a mapping of its shape"
    raise refuse(f"{show(value)} is not a model; expected {expected}")


def _faults(value: object) -> object:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise refuse(f"{show(value)} is not a list; expected entries such as {{kind: slow_gpu, gpu: node3.gpu5}}")
    return tuple(value)


def _background(value: object) -> object:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise refuse(f"{show(value)} is not a list; expected entries such as {{from: node0, to: node8, rate: 25 GB/s}}")
    return tuple(value)


class ScenarioKeys(Section):
    """The sections of a scenario, each validated on its own; what must hold between them is in `checks`."""

    name: Text = Field(examples=["my-first-run"])
    description: str = ""
    model: Annotated[Any, BeforeValidator(_model)] = Field(examples=["llama2-7b"])
    cluster: Annotated[ClusterSection, empty_when_null()] = Field(examples=["{topology: dgx-h100, nodes: 2}"])
    parallelism: Annotated[ParallelismSection, empty_when_null()] = ParallelismSection()
    training: Annotated[TrainingSection, empty_when_null()] = Field(examples=["{seq_len: 4096, global_batch: 512}"])
    data: Annotated[DataSection, empty_when_null()] = DataSection()
    simulation: Annotated[SimulationSection, empty_when_null()] = SimulationSection()
    faults: Annotated[tuple[Fault, ...], BeforeValidator(_faults)] = ()
    background: Annotated[tuple[Background, ...], BeforeValidator(_background)] = ()
    job: Annotated[JobSection, empty_when_null()] = JobSection()
    economics: Annotated[EconomicsSection, empty_when_null()] = EconomicsSection()
