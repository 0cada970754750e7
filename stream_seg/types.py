"""The arrays that travel, by name."""

from __future__ import annotations

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
Scores: TypeAlias = NDArray[np.float32]
"""float32 (C, h, w), C-contiguous: one plane per class, not normalised, higher is likelier."""


VOID = 255
"""The label of pixels that belong to no class: nothing learns from them and nothing is scored at them."""


@dataclass(frozen=True)
class Classes:
    """Names in the order of the labels, and one colour each as the datasets publish them: (red, green, blue), 0-255."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colours):
            raise ConfigError(f"palette: {len(self.colours)} colours for {len(self.names)} classes; one each is needed")

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str, *, where: str = "") -> int:
        """The label of a class. Raises ConfigError naming the known classes, and `where` it was asked for."""
        if name not in self.names:
            place = f"{where}: " if where else ""
            raise ConfigError(f"{place}unknown class {name!r}; the classes are {', '.join(self.names)}")
        return self.names.index(name)

    @cached_property
    def bgr(self) -> NDArray[np.uint8]:
        """Colours by label, uint8 (256, 3), blue green red; void and all that is no class are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = np.array(self.colours, np.uint8).reshape(-1, 3)[:, ::-1]
        return table
