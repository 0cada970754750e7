"""The arrays that travel, by name."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""uint8 (H, W, 3), blue green red. Not writeable where several stages share it: copy before drawing."""
Labels: TypeAlias = NDArray[np.uint8]
"""uint8 (h, w), an index into `Classes.names`; 255 is void."""
Scores: TypeAlias = NDArray[np.float32]
"""float32 (C, h, w), C-contiguous: one plane per class, not normalised, higher is likelier."""
