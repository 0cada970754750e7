"""The stages of a document that has not been checked yet, which arguments and switches of the command line change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from stream_seg.errors import ConfigError
from stream_seg.stages.base import Role, Traits, traits_of
from stream_seg.stages.registry import StageLoader


class Draft:
    """The stages of a document; `keys` are those of each stage, by stage name.

    An unknown stage has the default traits and no fields: the check of the graph reports it. Raises ConfigError for a
    document without a mapping of stages.
    """

    def __init__(self, document: Mapping[str, Any], loader: StageLoader) -> None:
        stages = document.get("stages")
        if not isinstance(stages, dict) or not all(isinstance(keys, dict | None) for keys in stages.values()):
            raise ConfigError("stages: expected a mapping from names to keys, for example `NAME: {input: NAME}`")
        self._document, self._loader = document, loader
        self.keys = {str(name): dict(keys or {}) for name, keys in stages.items()}

    def kind(self, name: str) -> object:
        """Return the `stage:` of a stage, by default its name."""
        return self.keys[name].get("stage", name)

    def traits(self, name: str) -> Traits:
        """Return the traits of a stage."""
        try:
            return traits_of(self._loader.load(self.kind(name)))
        except ConfigError:
            return Traits()

    def fields(self, name: str) -> Mapping[str, FieldInfo]:
        """Return the fields of a stage by name, which are the keys that it may have."""
        try:
            declared: Mapping[str, FieldInfo] = self._loader.load(self.kind(name)).__pydantic_fields__  # type: ignore[attr-defined]
        except ConfigError:
            return {}
        return declared

    def names(self, role: Role) -> list[str]:
        """Return the names of the stages with a role."""
        return [name for name in self.keys if self.traits(name).role == role]

    def inputs(self, name: str) -> list[str]:
        """Return the names of the stages that a stage takes frames from."""
        inputs = self.keys[name].get("input", [])
        return [str(source) for source in inputs] if isinstance(inputs, list) else [str(inputs)]

    def replace_stages(self, stages: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the document with other stages."""
        return {**self._document, "stages": dict(stages)}
