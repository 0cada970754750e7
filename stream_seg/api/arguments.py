"""Arguments of the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, TypeAlias

from stream_seg.errors import ConfigError

PathText: TypeAlias = str | PathLike[str]
Document: TypeAlias = Mapping[str, Any]


def network_key(network: PathText | Document) -> str | dict[str, Any]:
    """Return the key `network` of a stage."""
    return dict(network) if isinstance(network, Mapping) else fspath(network)


def source_address(source: object) -> str:
    """Return the address of a source. Raises ConfigError for anything but a path, a URL or a camera number."""
    if isinstance(source, str | int | PathLike):
        return str(source) if isinstance(source, int) else str(fspath(source))
    raise ConfigError(f"source: expected a path, a URL or a camera number, got {type(source).__name__}")
