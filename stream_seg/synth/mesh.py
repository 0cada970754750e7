"""Meshes of plane faces, each of one colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_seg.synth.camera import Points
from stream_seg.synth.texture import Colour

Part: TypeAlias = tuple[Sequence[Sequence[float]], Colour]
"""Corners of a face, (X, Y, Z) each, and its colour. The first, second and last corner must not be collinear."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Corners of all faces, (N, 3); the end of each face among them; indices of three corners of each face, (F, 3);
    colours (F, 3)."""

    points: Points
    ends: list[int]
    plane_corners: NDArray[np.intp]
    colours: NDArray[np.float64]

    @classmethod
    def from_parts(cls, parts: Sequence[Part]) -> Mesh:
        """Return a mesh of the faces `parts`."""
        ends = np.cumsum([len(corners) for corners, _ in parts])
        starts = ends - [len(corners) for corners, _ in parts]
        points = np.array([corner for corners, _ in parts for corner in corners], np.float64)
        three = np.stack((starts, starts + 1, ends - 1), axis=1)
        return cls(points, ends.tolist(), three, np.array([colour for _, colour in parts], np.float64))

    def visible_faces(self, relative: Points) -> list[int]:
        """Return the faces whose camera-centered corners are in clockwise order as seen by the camera."""
        return [int(face) for face in np.flatnonzero(np.linalg.det(relative[self.plane_corners]) < 0)]
