"""The fields of one Hugging Face config.json, read with errors that name the file, the family and the field."""

from collections.abc import Mapping
from typing import Any

from llmsim.errors import ModelError


class ConfigFields:
    """The fields of one file, with errors that name it."""

    def __init__(self, fields: Mapping[str, Any], file: str, kind: str) -> None:
        self.fields, self.file, self.kind = fields, file, kind

    def need(self, *names: str) -> Any:
        """The first of these fields that the file holds and that is not null."""
        for name in names:
            if self.fields.get(name) is not None:
                return self.fields[name]
        wanted = " or ".join(repr(name) for name in names)
        raise ModelError(
            f"{self.file}: a config of model_type {self.kind!r} needs the field {wanted}, which is missing"
        )

    def need_key(self, name: str) -> Any:
        """A field that must be there; null has a meaning of its own."""
        if name not in self.fields:
            self.need(name)
        return self.fields.get(name)

    def get(self, name: str, absent: Any = None) -> Any:
        value = self.fields.get(name)
        return absent if value is None else value

    def whole(self, *names: str) -> int:
        """A needed field that must be a whole number."""
        value = self.need(*names)
        if isinstance(value, bool) or not isinstance(value, int):
            named = next(name for name in names if self.fields.get(name) is not None)
            raise ModelError(f"{self.file}: {named} = {value!r} is not a whole number")
        return value

    def listed(self, name: str) -> list[Any]:
        """A list, empty when absent."""
        value = self.get(name, [])
        if not isinstance(value, list):
            raise self.refuse(name, "a list")
        return value

    def inner(self, name: str) -> "ConfigFields":
        fields = self.need(name)
        if not isinstance(fields, Mapping):
            raise ModelError(f"{self.file}: {name} = {fields!r} is not an object")
        return ConfigFields(fields, self.file, self.kind)

    def with_absent(self, defaults: Mapping[str, Any]) -> "ConfigFields":
        """The same fields, with these in place of those that are missing."""
        return ConfigFields({**defaults, **self.fields}, self.file, self.kind) if defaults else self

    def refuse(self, field: str, accepted: str) -> ModelError:
        return ModelError(f"{self.file}: {field} = {self.fields.get(field)!r} is not supported; expected {accepted}")

    def unmodelled(self, layers: str) -> ModelError:
        return ModelError(
            f"{self.file}: model_type {self.kind!r} has {layers}, which are not modelled; "
            "expected a model whose layers are attention and MLPs or experts"
        )
