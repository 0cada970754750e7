"""Read and write files of weights: unwrap checkpoints, match names of layers, never run code of a file."""

from __future__ import annotations

import argparse
import json
import pickle
import struct
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stream_seg.errors import NetworkError
from stream_seg.files.writing import is_file, replace_file

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
WRAPPERS = (
    *("average", "ema", "model_ema", "ema_state_dict", "state_dict_ema"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights"),
)
"""Keys under which checkpoints keep weights, in order of preference: an average before the weights it follows."""
MAX_DEPTH = 8
"""Wrappers within wrappers that are unwrapped, at most: a dict may contain itself."""
ABOUT = "about"
"""Key of this project's checkpoints for the network's name and the keys of a side-car."""
METADATA = "stream_seg"
"""Key of a .safetensors file of this project for the same, as JSON."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Prefixes that DataParallel, torch.compile and training frameworks put before every name."""
SAFE_GLOBALS = (argparse.Namespace, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType)
"""Types allowed beside tensors: torchvision's reference scripts save their arguments, others a best score."""
DAMAGE = (
    *(RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError),
    *(EOFError, MemoryError, OverflowError, struct.error),
)
"""Exceptions of torch and pickle for a truncated or damaged file, in torch's old format too."""


def read_weights(path: Path) -> dict[str, Any]:
    """Read the dict of a file, with tensors on the CPU. Raises NetworkError; no code of the file is run."""
    if not is_file(path, error=NetworkError):
        raise NetworkError(f"{path}: no such file; expected a file ending in {', '.join(SUFFIXES)}")
    try:
        content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    except pickle.UnpicklingError as error:
        reason = "not a file of weights"
        if "GLOBAL" in str(error):  # otherwise it is no pickle
            reason = "holds more than tensors, which could be code; save the network's state_dict() and load that"
        raise NetworkError(f"{path}: {reason}") from error
    except OSError as error:
        raise NetworkError(f"{path}: {error.strerror or error}") from error
    except DAMAGE as error:
        lines = str(error).splitlines() or ["it ends early"]
        raise NetworkError(f"{path}: not a file of weights, or truncated: {lines[0]}") from error
    if not isinstance(content, dict):
        raise NetworkError(f"{path}: holds a {type(content).__name__}; expected a dict of tensors by name")
    return content


def _read_torch(path: Path) -> Any:
    scalar: Any = np.float64(0).__reduce__()[0]  # numpy's own function, under its name in this version
    with torch.serialization.safe_globals([*SAFE_GLOBALS, scalar]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about a foreign pickle protocol, which is rejected or harmless
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise RuntimeError(str(error)) from error
    return {"weights": tensors, ABOUT: json.loads(metadata[METADATA])} if METADATA in metadata else tensors


def unwrap_weights(content: Mapping[str, Any], *, where: str) -> dict[str, Tensor]:
    """Return the tensors by name from inside a checkpoint's wrappers. Raises NetworkError if there are none."""
    for _ in range(MAX_DEPTH):
        if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
            break
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            keys = format_names(map(str, content))
            expected = f"tensors by name at the top or under one of {', '.join(WRAPPERS)}"
            raise NetworkError(f"{where}: no weights found among its keys {keys}; expected {expected}")
        content = inner
    else:
        raise NetworkError(f"{where}: no weights found within {MAX_DEPTH} nested wrappers")
    weights = {name: value for name, value in content.items() if name != "n_averaged"}  # of torch's AveragedModel
    if not weights:
        raise NetworkError(f"{where}: no weights found: it holds only n_averaged")
    return weights


def match_names(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Return the tensors under the names of a network: remove prefixes common to all tensors, or add one."""
    names, state = list(names), dict(state)
    again = bool(state)
    while again:
        again = False
        for prefix in PREFIXES:
            if all(key.startswith(prefix) for key in state) and not all(key.startswith(prefix) for key in names):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                again = True
    first = f"{names[0].partition('.')[0]}." if names else ""
    if all(key.startswith(first) for key in names) and not any(key.startswith(first) for key in state):
        state = {f"{first}{key}": value for key, value in state.items()}  # torchvision's weights, for our wrapper
    return state


def format_names(names: Iterable[str], limit: int = 4) -> str:
    """Join the first `limit` names, followed by the number of others."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def save_weights(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write a .safetensors file for `open_weights`, with `about` from `source.describe_weights`. Raises OutputError.

    Kernels are rounded to float16, statistics and biases are not.
    """
    from safetensors.torch import save

    rounded = {name: (value.half() if value.ndim > 1 else value).contiguous() for name, value in state.items()}
    replace_file(path, save(rounded, {METADATA: json.dumps(about)}), overwrite=overwrite)
