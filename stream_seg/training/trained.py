"""From a .pth of a network of the zoo to an interchange ONNX with its side-car."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stream_seg.errors import NetworkError
from stream_seg.output import refuse_unwritable
from stream_seg.sidecar import coloured
from stream_seg.training.__main__ import built
from stream_seg.training.export import describe, export_onnx

WRAPPERS = ("average", "state_dict", "model")
"""Keys under which checkpoints keep the weights: this project's averaged ones first."""


def export_trained(
    network: str,
    weights: Path,
    out: Path,
    *,
    classes: Sequence[str],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Write OUT and OUT with the ending .json. `mean` and `std` are of blue, green, red, 0 to 1.

    Raises NetworkError for weights that are not a state dict of `network`, ConfigError for a name that is none.
    """
    refuse_unwritable(out)
    net = built(network, len(classes), where="engines export")
    state = weights_of(weights)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise NetworkError(
            f"{weights}: not weights of {network} with {len(classes)} classes: {reason[:300]}"
        ) from error
    export_onnx(net, out, size=size, mean=mean, std=std)
    describe(out, coloured(classes, None, where="engines export"), size=size, mean=mean, std=std)


def weights_of(path: Path) -> Mapping[str, Any]:
    """The tensors of a .pth, which is read as data: one that holds code is refused. Raises NetworkError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a foreign pickle protocol, which is refused below or harmless
            said = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise NetworkError(f"{path}: {error.strerror or error}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise NetworkError(f"{path}: not a file of weights alone; save net.state_dict()") from error
    for key in WRAPPERS:
        if isinstance(said, dict) and isinstance(said.get(key), dict):
            said = said[key]
    if not isinstance(said, dict) or not all(isinstance(value, torch.Tensor) for value in said.values()):
        raise NetworkError(f"{path}: holds no state dict; save net.state_dict()")
    return said
