"""What is refused before the work begins, and not after hours of it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from stream_seg.errors import ConfigError, OutputError


def refuse_sidecars(onnx: Path) -> None:
    """Raise OutputError where a file beside would be taken for what says what `onnx` is."""
    for other in (onnx.with_suffix(suffix) for suffix in (".yaml", ".yml")):
        if other.exists():
            raise OutputError(f"{other} would be taken for the side-car of {onnx.name}; give --out another name")


def require(*modules_and_purpose: str) -> None:
    """Raise ConfigError for a package that is not installed."""
    *modules, purpose = modules_and_purpose
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{purpose}, {', '.join(missing)} must be installed: pip install '.[train]'")
