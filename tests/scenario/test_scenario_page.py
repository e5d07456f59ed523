"""docs/scenario.md lists every key of a scenario with its default, and no other."""

import re

import yaml
from folders import ROOT

from llmsim.model.mapping import architecture_from_mapping
from llmsim.scenario.complaints import _model_in, known_keys
from llmsim.scenario.schema import Scenario
from llmsim.scenario.sections import Background, ClusterSection, Fault, Section, TrainingSection

PAGE = (ROOT / "docs" / "scenario.md").read_text("utf-8")
NEEDED = {
    Scenario: {"name": "x", "model": "gpt2", "cluster": {"topology": "dgx-h100"}, "training": {"global_batch": 8}},
    ClusterSection: {"topology": "dgx-h100"},
    TrainingSection: {"global_batch": 8},
    Fault: {"kind": "slow_gpu"},
    Background: {"from": "node0", "to": "node1", "rate": 1e9},
}  # what a section cannot be made without


def described() -> dict[str, str]:
    """Dotted key: the cell of its default, by the tables under each heading."""
    found: dict[str, str] = {}
    for heading, body in re.findall(r"^## (.+)\n([\s\S]*?)(?=^## |\Z)", PAGE, re.MULTILINE):
        prefix = f"{heading.strip('`')}." if heading.startswith("`") else ""
        for key, default in re.findall(r"^\| `([\w.]+)` \| (.+?) \|", body, re.MULTILINE):
            assert prefix + key not in found, key
            found[prefix + key] = default
    return found


def test_every_key_is_described():
    keys = set(known_keys(Scenario))
    leaves = {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}
    assert leaves <= set(described()) <= keys


def test_defaults_are_those_of_the_schema():
    for key, cell in described().items():
        kind, field = _field(key)
        if kind.model_fields[field].is_required():
            assert cell == "required", key
        else:
            last = key.rpartition(".")[2]
            read = kind.model_validate(NEEDED.get(kind, {}) | {last: yaml.safe_load(cell)})
            assert getattr(read, field) == kind.model_fields[field].default, key


def _field(dotted: str) -> tuple[type[Section], str]:
    """The section that holds a key, and the name of its field."""
    *above, last = dotted.split(".")
    kind: type[Section] = Scenario
    for part in above:
        kind = _model_in(kind.model_fields[part].annotation)
    return kind, next(name for name, field in kind.model_fields.items() if last == (field.alias or name))


def test_the_examples_work():
    model, encoder, topology = re.findall(r"```yaml\n(.+?)```", PAGE, re.DOTALL)
    decoder = yaml.safe_load(model)["model"]
    assert architecture_from_mapping(decoder, "page").moe.experts == 8
    assert architecture_from_mapping(decoder | yaml.safe_load(encoder)["model"], "page").image_tokens == 576
    from llmsim.cluster.reading.parse import parse_topology

    assert parse_topology(yaml.safe_load(topology), "page", "page", {}).nics_per_gpu == 1
