"""Bodies of plane faces, each of one colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_seg.synth.camera import Points
from stream_seg.synth.texture import Colour

Part: TypeAlias = tuple[Sequence[Sequence[float]], Colour]
"""The corners of a face, (X, Y, Z) each, and its colour. The first, second and last must not lie on one line."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Corners of all faces, (N, 3), one face after the other; where each face ends; three corners of each, (F, 3);
    colours (F, 3)."""

    points: Points
    ends: list[int]
    three: NDArray[np.intp]
    colours: NDArray[np.float64]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Mesh:
        ends = np.cumsum([len(corners) for corners, _ in parts])
        starts = ends - [len(corners) for corners, _ in parts]
        points = np.array([corner for corners, _ in parts for corner in corners], np.float64)
        three = np.stack((starts, starts + 1, ends - 1), axis=1)
        return cls(points, ends.tolist(), three, np.array([colour for _, colour in parts], np.float64))

    def facing(self, relative: Points) -> list[int]:
        """The faces whose corners run clockwise as the camera sees them, from the camera-centred corners."""
        return [int(face) for face in np.flatnonzero(np.linalg.det(relative[self.three]) < 0)]
