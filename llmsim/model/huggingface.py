"""An `Architecture` out of a Hugging Face config.json. What each family's fields mean: `config_families`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmsim.documents import read_json
from llmsim.errors import ModelError, nearest
from llmsim.model.architecture import Architecture
from llmsim.model.config_families import READERS, UNMODELLED
from llmsim.model.config_fields import ConfigFields
from llmsim.model.mapping import architecture_from_mapping
from llmsim.model.published import models


def load_config(path: str | Path) -> Architecture:
    """The architecture of a config.json, or of the directory that holds one.

    Raises `ModelError`, one sentence: the file cannot be read, its model_type is not known (with the accepted ones),
    a field is missing, or the shape is impossible.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    if not file.exists():
        raise ModelError(_no_such(path))
    fields = read_json(file, ModelError, "a Hugging Face config.json")
    if not isinstance(fields, dict):
        raise ModelError(f"{file}: holds no JSON object; expected a Hugging Face config.json")
    name = file.parent.name if file.name == "config.json" and file.parent.name else file.stem
    return architecture_from_config(fields, name, str(file))


def _no_such(path: str | Path) -> str:
    """A hub name such as meta-llama/Llama-3.1-8B looks like a path; nothing is downloaded."""
    hint = nearest(Path(path).name.removesuffix(".json").lower(), models())
    return f"there is no file {str(path)!r}; expected the path of a config.json, or a name from `llmsim models`{hint}"


def architecture_from_config(fields: Mapping[str, Any], name: str, file: str = "config.json") -> Architecture:
    """The architecture that the fields of a config.json describe; `file` is what errors call it.

    Of a file with a `text_config` (images or sound beside words) it is the language model alone.
    """
    config = _language(ConfigFields(fields, file, _kind(fields, file)))
    if config.kind in UNMODELLED:
        raise config.unmodelled(UNMODELLED[config.kind])
    if config.kind not in READERS:
        hint = nearest(config.kind, READERS)
        listed = ", ".join(READERS)
        raise ModelError(f"{file}: model_type {config.kind!r} is not supported; expected one of {listed}{hint}")
    mapping = READERS[config.kind](config)
    try:
        return architecture_from_mapping(mapping, name)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None


def _kind(fields: Mapping[str, Any], file: str) -> str:
    kind = fields.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise ModelError(f"{file}: has no model_type; expected one of {', '.join(READERS)}")
    return kind


def _language(config: ConfigFields) -> ConfigFields:
    """The part of a file that describes the language model; the outer file says whether its head is tied."""
    if config.fields.get("text_config") is None:
        return config
    inner = config.inner("text_config").fields
    kind = inner.get("model_type") or f"{config.kind}_text"
    outer = {key: config.fields[key] for key in ("tie_word_embeddings",) if key in config.fields}
    return ConfigFields({**outer, **inner}, config.file, kind if isinstance(kind, str) else config.kind)
