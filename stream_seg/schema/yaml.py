"""Read YAML safely, without duplicate keys and aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from stream_seg.errors import ConfigError
from stream_seg.redact import quote_value, redact_secrets

LARGEST_FILE = 1_000_000
"""Bytes. A graph file has a dozen lines."""
DEEPEST = 32
"""Levels of nesting. A graph file has four."""


class _Loader(yaml.SafeLoader):
    """Reject duplicate keys (the second would silently win), aliases (a short file could be huge) and deep nesting."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise ConstructorError(None, None, "aliases are not allowed", mark)
        self._depth += 1
        if self._depth > DEEPEST:
            raise ConstructorError(None, None, f"more than {DEEPEST} levels deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # an invalid date or number, or a wrong tag
            message = f"{quote_value(str(node.value))} is no {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, message, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                message = f"duplicate key {quote_value(key.value)}"
                raise ConstructorError(None, None, message, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, *, where: str) -> Any:
    """Return the value of a YAML text. Raises ConfigError that names line and column."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where}:{place} {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML: {str(error).splitlines()[0]}") from error


def read_yaml(path: Path) -> Any:
    """Return the value of a YAML file. Raises ConfigError, also for a file that cannot be read."""
    where = redact_secrets(str(path))
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{where}: too large for a configuration file; the limit is {LARGEST_FILE} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        missing = "no such file" if isinstance(error, FileNotFoundError) else None
        reason = missing or (error.strerror if isinstance(error, OSError) else "not a text file")
        raise ConfigError(f"{where}: {reason}") from error
    return parse_yaml(text, where=where)


def line_of(path: Path, *keys: str) -> int | None:
    """Return the line number of a key in a YAML file, given the keys that lead to it; None if it cannot be found."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    line = None
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        name, node = next(((name, value) for name, value in pairs if name.value == key), (None, None))
        if name is None:
            return None
        line = name.start_mark.line + 1
    return line
