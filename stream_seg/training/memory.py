"""Report a training that does not fit into memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stream_seg.errors import ConfigError
from stream_seg.training.recipe import Recipe


@contextmanager
def report_out_of_memory(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Raise ConfigError if the work inside does not fit into the memory of `device`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch raises OutOfMemoryError for a GPU, but only a RuntimeError for the CPU
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not re.search("alloc.*memory", str(error)):
            raise
        height, width = recipe.crop
        raise ConfigError(
            f"batch: {recipe.batch} crops of {height}x{width} do not fit into the memory of"
            f" {'the GPU' if device.type == 'cuda' else 'this machine'}; use a smaller batch or crop"
        ) from error
