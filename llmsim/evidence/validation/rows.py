"""A row of the published tables as a scenario. The only place that knows what the columns mean.

What a framework does, what a model family looks like and which cluster a network column names is data:
`catalogue/measured/frameworks.yaml`. Nothing here depends on what was measured.
"""

import csv
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from llmsim.catalogue.frameworks import framework_data, merged
from llmsim.errors import CatalogueError, nearest
from llmsim.evidence.validation.clusters import cluster_of
from llmsim.scenario import Scenario

if TYPE_CHECKING:
    from llmsim.scenario import Scenario

TABLES = ("training_3d", "training_fsdp")
Row = Mapping[str, str]

_NARROW = {"mxfp8": "fp8", "fp8-cs": "fp8", "fp8-mx": "fp8"}  # scaling recipes of one arithmetic
# pp_schedule column -> schedule, where it is another than 1F1B
_SCHEDULES = (
    ("dualpipe-?v", "dualpipe-v"),
    ("dualpipe", "dualpipe"),
    ("zb-?v", "zb-v"),
    ("zb-?(h2|2p)", "zb-h2"),
    ("zb-?(h1|1p)", "zb-h1"),
    ("gpipe", "gpipe"),
)


@lru_cache(maxsize=1)
def known_reasons() -> dict[str, str]:
    """Why some runs cannot be met, by id."""
    import yaml

    text = files("llmsim.catalogue").joinpath("measured/reasons.yaml").read_text("utf-8")
    return {row: entry["reason"] for entry in yaml.safe_load(text) for row in entry["rows"]}


@lru_cache(maxsize=1)
def recipes() -> tuple[dict[str, Any], ...]:
    """What published recipes set for a release, GPU and model: fragments of scenarios, each under its conditions."""
    import yaml

    text = files("llmsim.catalogue").joinpath("measured/recipes.yaml").read_text("utf-8")
    return tuple(yaml.safe_load(text))


@lru_cache(maxsize=1)
def published_rows() -> tuple[dict[str, str], ...]:
    """Every published run that ships, as its table's columns (text; empty where not stated)."""
    folder = files("llmsim.catalogue").joinpath("measured")
    texts = [folder.joinpath(f"{name}.csv").read_text("utf-8") for name in TABLES]
    return tuple(row for text in texts for row in csv.DictReader(text.splitlines()))


def find_row(row_id: str) -> dict[str, str]:
    """The row of this id; raises `CatalogueError` with the nearest known id."""
    known = {row["id"]: row for row in published_rows()}
    if row_id not in known:
        hint = "; ids are in llmsim/catalogue/measured/training_*.csv"
        raise CatalogueError(f"no published run has the id {row_id!r}{nearest(row_id, known) or hint}")
    return known[row_id]


def scenario_of(row_id: str, detail: str = "block") -> "Scenario":
    """The scenario of a published run. Raises the `UserError` of what llmsim cannot express."""
    return Scenario(**scenario_mapping(find_row(row_id), detail))


def scenario_text(row_id: str) -> str:
    """The scenario of a published run as a YAML file, with its reference and measured time in front."""
    import yaml

    row = find_row(row_id)
    body = yaml.safe_dump(scenario_mapping(row, "kernel"), sort_keys=False, default_flow_style=None, width=100)
    return f"# {row['reference']}\n# measured: {float(row['iteration_time_s']):g} s an iteration\n{body}"


def framework_of(row: Row) -> str:
    """Name of the framework whose traits a row gets."""
    source = source_of(row)
    for name, entry in framework_data()["frameworks"].items():
        if re.search(entry["source"], source):
            return name
    raise CatalogueError(f"no framework of frameworks.yaml matches the source {source!r}")


def memory_definition(row: Row) -> str:
    """What the memory column of a row is: allocated, reserved or device."""
    return framework_data()["frameworks"][framework_of(row)]["memory"]


def source_of(row: Row) -> str:
    return row.get("source") or row.get("source_repo", "")


def scenario_mapping(row: Row, detail: str = "block") -> dict[str, Any]:
    """The keys of a scenario file for a row of the tables (all values text, as csv gives them)."""
    framework = framework_data()["frameworks"][framework_of(row)]
    mapping: dict[str, Any] = {
        "name": row["id"],
        "model": _model(row),
        "cluster": cluster_of(row),
        "parallelism": _parallelism(row),
        "training": _training(row),
        "simulation": {"detail": detail},
    }
    mapping = merged(mapping, framework["scenario"])
    for rule in framework.get("when", ()):
        if re.search(rule["match"], row.get(rule["column"]) or ""):
            mapping = merged(mapping, rule["scenario"])
    stage = zero_stage(row.get("zero_stage") or "")
    if stage is not None:
        mapping["parallelism"]["zero"] = stage  # what the run says of itself, whatever its framework usually does
    for recipe in recipes():
        if all(re.search(pattern, row.get(column) or "") for column, pattern in recipe["match"].items()):
            mapping = merged(mapping, recipe["scenario"])
    layout = mapping["parallelism"]
    if "stage_layers" not in layout:
        counts = _stage_layers(row, layout["pp"] * layout["vpp"], framework.get("split", "edges"))
        if counts:
            mapping["parallelism"]["stage_layers"] = counts
    return mapping


def zero_stage(text: str) -> int | None:
    """The ZeRO stage that a column names: `2`, `fsdp` (3), `fsdp zero-1/2` (2); None where it is empty.

    Raises `CatalogueError` for what names none.
    """
    if not text:
        return None
    stages = re.findall(r"(?<![\d.])[0-3](?:\.0)?(?![\d.])", text)
    if not stages and "fsdp" not in text.lower():
        raise CatalogueError(f"zero_stage: {text!r} names no ZeRO stage; expected 0, 1, 2, 3 or fsdp")
    return max((int(float(stage)) for stage in stages), default=3)


def _number(row: Row, key: str, default: int = 0) -> int:
    return int(float(row.get(key) or default))


# -- the model -----------------------------------------------------------------------------------------------------


def _model(row: Row) -> str | dict[str, Any]:
    name = row["model_name"]
    family = next(entry for entry in framework_data()["families"] if re.search(entry["match"], name))
    if "catalogue" in family:
        return family["catalogue"]
    shape: dict[str, Any] = {key: _number(row, key) for key in ("layers", "hidden", "heads", "vocab")}
    shape |= {key: _number(row, key) for key in ("kv_heads", "ffn_hidden") if _number(row, key)}
    shape |= {key: bool(_number(row, key)) for key in ("gated_mlp", "tied_embeddings")}
    if _number(row, "n_experts") > 1:
        shape["moe"] = {
            "experts": _number(row, "n_experts"),
            "top_k": _number(row, "top_k"),
            "expert_ffn_hidden": _number(row, "expert_ffn"),
        }
    return shape | family["model"]


# -- the layout ----------------------------------------------------------------------------------------------------


def _parallelism(row: Row) -> dict[str, Any]:
    degrees = {key: _number(row, key, 1) for key in ("tp", "pp", "vpp", "cp", "ep")}
    if degrees["pp"] == 1:
        degrees["vpp"] = 1
    degrees["sequence_parallel"] = bool(_number(row, "sequence_parallel"))
    if "sequence_parallel" not in row:
        degrees["sequence_parallel"] = degrees["tp"] > 1
    named = (name for match, name in _SCHEDULES if re.search(match, (row.get("pp_schedule") or "").lower()))
    degrees["schedule"] = next(named, "interleaved" if degrees["vpp"] > 1 else "1f1b")
    return degrees


def _stage_layers(row: Row, stages: int, split: str) -> list[int] | None:
    """Layers of each virtual stage where they are not equal.

    `edges`: embedding and head count as one layer each when only that comes out even (Megatron's
    account-for-embedding-and-loss, DeepSpeed's type:transformer|embedding, torchtitan). `cost`: nanotron's blocks.
    """
    layers = _number(row, "layers")
    if stages == 1:
        return None
    if split == "cost":
        counts = _balanced(row, layers, stages)
    elif layers % stages == 0:
        return None
    elif (layers + 2) % stages == 0:
        counts = [(layers + 2) // stages] * stages
        counts[0] -= 1
        counts[-1] -= 1
    else:
        counts = [layers // stages + (number < layers % stages) for number in range(stages)]
    return None if len(set(counts)) == 1 else counts


def _balanced(row: Row, layers: int, stages: int) -> list[int]:
    """Blocks in order, the next stage beginning behind the block that passes its share of the parameters."""
    hidden, ffn = _number(row, "hidden"), _number(row, "ffn_hidden")
    layer, head = 4 * hidden**2 + 3 * hidden * ffn, _number(row, "vocab") * hidden
    counts, stage, total = [0] * stages, 0, layers * layer + head
    for number in range(layers):
        counts[stage] += 1
        if (number + 1) * layer > total * (stage + 1) / stages:
            stage += 1
    return counts


# -- the training --------------------------------------------------------------------------------------------------


def _training(row: Row) -> dict[str, Any]:
    precision = row["precision"].split(" ")[0]
    return {
        "seq_len": _number(row, "seq_len"),
        "global_batch": _number(row, "global_batch_sequences"),
        "micro_batch": _number(row, "micro_batch"),
        "precision": _NARROW.get(precision, precision),
        "recompute": _recompute(row),
    }


def _recompute(row: Row) -> str | dict[str, Any]:
    text = row.get("recompute") or "none"
    mode = next((mode for mode in ("full", "selective") if text.startswith(mode)), "none")
    if mode != "selective":
        return mode
    notes = row.get("overlap_notes") or ""
    if framework_of(row) == "torchtitan":
        # By operator, every second product is recomputed, and all that are fp8 (their operator is not on the list of
        # those saved); by block, every second block.
        if "per-op" in notes and row["precision"].startswith("fp8"):
            return "full"
        return {"mode": "full", "layers": max(1, _number(row, "layers") // (2 * _number(row, "pp", 1)))}
    # Recipes recompute a norm or an activation here and there, which costs next to nothing; flash keeps no scores.
    return "none" if "flash" in (row.get("attention") or "") else "selective"
