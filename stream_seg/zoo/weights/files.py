"""A file of weights as one finds it: what is wrapped round the tensors taken off, nothing but tensors ever loaded."""

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
from stream_seg.files import is_file, replace_file

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
WRAPPERS = (
    *("average", "ema", "model_ema", "ema_state_dict", "state_dict_ema"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights"),
)
"""Keys under which checkpoints keep the weights; the first that is there counts, an average before its origin."""
NESTED = 8
"""Wrappers within wrappers that are taken off, at most: a dict may hold itself."""
ABOUT = "about"
"""The key under which this project's checkpoints say what a side-car says of other files, and `network`."""
METADATA = "stream_seg"
"""The key under which a .safetensors of this project says the same, as JSON."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Put before every name by DataParallel, torch.compile and training frames."""
HARMLESS = (argparse.Namespace, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType)
"""What checkpoints hold beside tensors: torchvision's reference scripts keep their arguments, others a best score."""
DAMAGED = (
    *(RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError),
    *(EOFError, MemoryError, OverflowError, struct.error),
)
"""What torch and pickle raise for a file that is cut off or damaged, in torch's old format too."""


def read_weights(path: Path) -> dict[str, Any]:
    """What a file holds, tensors on the CPU. Raises NetworkError; code in it is never run (`weights_only`)."""
    if not is_file(path, error=NetworkError):
        raise NetworkError(f"{path}: no such file; weights end in {', '.join(SUFFIXES)}")
    try:
        content = _safetensors(path) if path.suffix.lower() == ".safetensors" else _torch(path)
    except pickle.UnpicklingError as error:
        more = "GLOBAL" in str(error)  # else it is no pickle at all
        reason = (
            "holds more than tensors, which could be code; save the network's state_dict() and load that"
            if more
            else "not a file of weights"
        )
        raise NetworkError(f"{path}: {reason}") from error
    except OSError as error:
        raise NetworkError(f"{path}: {error.strerror or error}") from error
    except DAMAGED as error:
        said = str(error).splitlines() or ["it ends early"]
        raise NetworkError(f"{path}: not a file of weights, or cut off: {said[0]}") from error
    if not isinstance(content, dict):
        raise NetworkError(f"{path}: holds a {type(content).__name__}; names and tensors are expected")
    return content


def _torch(path: Path) -> Any:
    scalar: Any = np.float64(0).__reduce__()[0]  # numpy's own function, under its name of this version
    with torch.serialization.safe_globals([*HARMLESS, scalar]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a foreign pickle protocol, which is refused or harmless
        return torch.load(path, map_location="cpu", weights_only=True)


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise RuntimeError(str(error)) from error
    return {"weights": tensors, ABOUT: json.loads(metadata[METADATA])} if METADATA in metadata else tensors


def unwrapped(content: Mapping[str, Any], *, where: str) -> dict[str, Tensor]:
    """The tensors by name, from inside whatever a checkpoint is. Raises NetworkError where there are none."""
    for _ in range(NESTED):
        if _are_tensors(content):
            break
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            raise NetworkError(
                f"{where}: no weights found: its keys are {some(map(str, content))}; tensors by name are expected at"
                f" the top or under one of {', '.join(WRAPPERS)}"
            )
        content = inner
    else:
        raise NetworkError(f"{where}: no weights found in {NESTED} wrappers, one within another; fewer are expected")
    weights = {name: value for name, value in content.items() if name != "n_averaged"}  # of torch's AveragedModel
    if not weights:
        raise NetworkError(f"{where}: no weights found: it holds n_averaged alone")
    return weights


def _are_tensors(content: Mapping[str, Any]) -> bool:
    return bool(content) and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def renamed(state: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """The tensors under the names that the network has: prefixes common to all taken off, or put before all."""
    wanted, state = list(wanted), dict(state)
    again = bool(state)
    while again:
        again = False
        for prefix in PREFIXES:
            if all(key.startswith(prefix) for key in state) and not all(key.startswith(prefix) for key in wanted):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                again = True
    first = f"{wanted[0].partition('.')[0]}." if wanted else ""
    if all(key.startswith(first) for key in wanted) and not any(key.startswith(first) for key in state):
        state = {f"{first}{key}": value for key, value in state.items()}  # torchvision's own, in our wrapper
    return state


def some(names: Iterable[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def save_weights(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write NAME.safetensors, which `open_weights` reads; `about` is what `source.about` says. Raises OutputError.

    Kernels are rounded to float16, statistics and biases are not.
    """
    from safetensors.torch import save

    rounded = {
        name: value.to(torch.float16 if value.ndim > 1 else value.dtype).contiguous() for name, value in state.items()
    }
    replace_file(path, save(rounded, {METADATA: json.dumps(about)}))
