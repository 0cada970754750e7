"""YAML as this project reads it: safe, without duplicate keys and without aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from stream_seg.errors import ConfigError
from stream_seg.redact import quoted, without_secrets

LARGEST_FILE = 1_000_000
"""Bytes. A graph file has a dozen lines."""


DEEPEST = 32
"""Levels of nesting. A graph file has four."""


class _Loader(yaml.SafeLoader):
    """Without duplicate keys (the second would silently win), aliases (a short file could be huge) and abysses."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", mark)
        self._depth += 1
        if self._depth > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, f"more than {DEEPEST} levels deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # a date or number that is none, a tag that lies
            kind = node.tag.rpartition(":")[2]
            said = f"{quoted(str(node.value))} is no {kind}"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                said = f"duplicate key {quoted(key.value)}"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, *, where: str) -> Any:
    """The value that a YAML text says. Raises ConfigError with the place of what is wrong."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where}:{place} {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML: {str(error).splitlines()[0]}") from error


def read_yaml(path: Path) -> Any:
    """The value that a YAML file says. Raises ConfigError, also for a file that cannot be read."""
    where = without_secrets(str(path))
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{where}: larger than a YAML file of this project may be ({LARGEST_FILE} bytes)")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"{where}: {reason}") from error
    return parse_yaml(text, where=where)
