"""Pre-flight checks of training and export."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from stream_seg.errors import ConfigError, OutputError


def refuse_sidecars(onnx: Path) -> None:
    """Raise OutputError if a YAML file beside `onnx` would be read as its side-car."""
    for other in (onnx.with_suffix(suffix) for suffix in (".yaml", ".yml")):
        if other.exists():
            raise OutputError(f"{other} would be read as the side-car of {onnx.name}; choose another --out")


def require_modules(*modules: str, purpose: str) -> None:
    """Raise ConfigError for modules that are not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{purpose} needs {', '.join(missing)}: pip install '.[train]'")
