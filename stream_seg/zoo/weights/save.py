"""Weights to pass on: one .safetensors of half the precision, which says itself what it expects of a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stream_seg.output import replace_file
from stream_seg.zoo.weights.files import METADATA


def save_weights(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write NAME.safetensors, which `open_weights` reads; `about` is what `source.about` says. Raises OutputError.

    Kernels are rounded to float16, statistics and biases are not.
    """
    from safetensors.torch import save

    rounded = {
        name: value.to(torch.float16 if value.ndim > 1 else value.dtype).contiguous() for name, value in state.items()
    }
    replace_file(path, save(rounded, {METADATA: json.dumps(about)}))
