"""Array types of frames, and the classes of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import ConfigError

Image: TypeAlias = NDArray[np.uint8]
"""uint8 (H, W, 3), blue green red. Not writeable where several stages share it: copy before drawing."""
Labels: TypeAlias = NDArray[np.uint8]
"""uint8 (h, w), an index into `Classes.names`; 255 is void."""
Mask: TypeAlias = NDArray[np.uint8]
"""uint8 (h, w), 255 where a condition holds, else 0."""
Scores: TypeAlias = NDArray[np.float32]
"""float32 (C, h, w), C-contiguous: one plane per class, not normalized, higher is likelier."""

VOID = 255
"""The label of pixels without a class, which training and evaluation ignore."""


@dataclass(frozen=True)
class Classes:
    """Names and colours (red, green, blue), 0-255, of the classes, in the order of the labels."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colours):
            raise ConfigError(f"palette: {len(self.colours)} colours for {len(self.names)} classes; expected one each")

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str, *, where: str = "") -> int:
        """Return the label of a class. Raises ConfigError that begins with `where` and lists the known classes."""
        if name not in self.names:
            prefix = f"{where}: " if where else ""
            raise ConfigError(f"{prefix}unknown class {name!r}; the classes are {', '.join(self.names)}")
        return self.names.index(name)

    def select(self, names: Sequence[str] | None, *, where: str = "") -> NDArray[np.bool_]:
        """Return bool (256,) by label: True for the classes `names`, None for all; never for void.

        Raises ConfigError that begins with `where` for an unknown class.
        """
        table = np.zeros(256, np.bool_)
        table[[self.index(name, where=where) for name in (self.names if names is None else names)]] = True
        return table

    @cached_property
    def bgr(self) -> NDArray[np.uint8]:
        """Colours by label, uint8 (256, 3), blue green red; black for void and unused labels."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = np.array(self.colours, np.uint8).reshape(-1, 3)[:, ::-1]
        return table
