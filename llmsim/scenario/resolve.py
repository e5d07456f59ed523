"""What a valid scenario means: the architecture of its model, its topology, and the layout of its ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from llmsim.catalogue.calibration import AS_CATALOGUED, Calibrated, read_calibration
from llmsim.cluster.reading.load import load_topology
from llmsim.cluster.topology import Topology
from llmsim.errors import ScenarioError, UserError
from llmsim.model.architecture import Architecture
from llmsim.model.huggingface import load_config
from llmsim.model.mapping import architecture_from_mapping
from llmsim.model.published import model
from llmsim.parallel.layout import Layout
from llmsim.scenario.checks.registry import run_checks, run_grid_checks, run_warnings
from llmsim.scenario.checks.subject import Subject
from llmsim.scenario.origin import Origin

if TYPE_CHECKING:
    from llmsim.scenario.keys import ScenarioKeys

_KEY_OF = {"_architecture": "model", "_topology": "cluster.topology", "_calibration": "simulation.calibration"}
_SCHEDULE_TABLES = (".csv", ".json")
_TOPOLOGY_FILES = (".yaml", ".yml", ".json", ".graphml", ".xml")


@dataclass(frozen=True)
class Resolved:
    """`gpus` = nodes × gpus_per_node = layout.ranks; `warnings` are sentences without a line break.

    schedule: a name of `llmsim.parallel.schedules`, or the path of a table, relative to where llmsim was called.
    """

    architecture: Architecture
    topology: Topology
    layout: Layout
    schedule: str
    nodes: int
    gpus_per_node: int
    calibration: Calibrated = AS_CATALOGUED
    warnings: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


def resolve(scenario: ScenarioKeys, origin: Origin, sibling: tuple[ScenarioKeys, Resolved] | None = None) -> Resolved:
    """Looks up names and makes every cross-field check; `ScenarioError` with one line for each fault.

    sibling: a valid scenario and what it resolved to; model, topology or calibration may be the same, which saves
    looking them up again.
    """
    faults: list[tuple[str, str]] = []
    like, known = sibling or (None, None)

    def same(*keys: str) -> bool:
        return like is not None and all(attrgetter(key)(like) == attrgetter(key)(scenario) for key in keys)

    same_model, same_cluster = same("model", "training.images"), same("cluster.topology", "cluster.overrides")
    architecture = known.architecture if same_model else _tried(_architecture, scenario, origin, faults)
    topology = known.topology if same_cluster else _tried(_topology, scenario, origin, faults)
    same_calibration = same("simulation.calibration")
    calibration = known.calibration if same_calibration else _tried(_calibration, scenario, origin, faults)
    if architecture is None or topology is None:
        raise _error(faults, origin)
    schedule = scenario.parallelism.schedule
    schedule = str(beside(schedule, origin)) if schedule.lower().endswith(_SCHEDULE_TABLES) else schedule
    subject = Subject(scenario, architecture, topology, schedule)
    grid_faults = run_grid_checks(subject)
    # Without a rank grid the other checks have nothing to divide by.
    faults += grid_faults or run_checks(subject)
    if faults:
        raise _error(faults, origin)
    warnings = tuple(origin.sentence(key, text) for key, text in run_warnings(subject))
    return Resolved(
        architecture=architecture,
        topology=topology,
        layout=subject.layout(),
        schedule=schedule,
        nodes=scenario.cluster.nodes,
        gpus_per_node=subject.gpus_per_node,
        calibration=calibration,
        warnings=warnings,
    )


def _error(faults: list[tuple[str, str]], origin: Origin) -> ScenarioError:
    return ScenarioError("\n".join(origin.sentence(key, text) for key, text in faults))


def _tried(look_up: Callable, scenario: ScenarioKeys, origin: Origin, faults: list[tuple[str, str]]):
    """The answer of `look_up(scenario, origin)`, or None with the fault noted at the key it concerns."""
    try:
        return look_up(scenario, origin)
    except UserError as error:
        faults.append(_located(str(error), _KEY_OF[look_up.__name__]))
        return None


def _located(text: str, key: str) -> tuple[str, str]:
    """(key, text): catalogue errors name the inner key in front, as in `override node.gpus: …` or `heads: …`."""
    inner, colon, rest = text.partition(": ")
    if key == "cluster.topology" and colon and inner.startswith("override "):
        return "cluster.overrides." + inner.removeprefix("override "), rest
    if key == "model" and colon and inner.startswith("model '"):
        inner, _, rest = rest.partition(": ")
        if rest and " " not in inner:
            return f"model.{inner}", rest
        return key, text.partition(": ")[2]
    return key, text


def _architecture(scenario: ScenarioKeys, origin: Origin) -> Architecture:
    found, images = _model(scenario, origin), scenario.training.images
    return replace(found, encoder_images=images) if images and found.encoder else found


def _model(scenario: ScenarioKeys, origin: Origin) -> Architecture:
    value = scenario.model
    if not isinstance(value, str):
        return architecture_from_mapping(value, scenario.name)
    if value.endswith(".json") or "/" in value or "\\" in value or Path(value).is_dir():
        return load_config(beside(value, origin))

    return model(value).architecture


def _topology(scenario: ScenarioKeys, origin: Origin) -> Topology:
    name = scenario.cluster.topology
    if name.endswith(_TOPOLOGY_FILES):
        name = str(beside(name, origin))
    return load_topology(name, scenario.cluster.overrides)


def _calibration(scenario: ScenarioKeys, origin: Origin) -> Calibrated:
    name = scenario.simulation.calibration
    return read_calibration(beside(name, origin)) if name else AS_CATALOGUED


def beside(name: str, origin: Origin) -> Path:
    """A path as the scenario file means it: relative to that file, or else to where llmsim was called."""
    beside = origin.folder / name
    return beside if beside.exists() else Path(name)
