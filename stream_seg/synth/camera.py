"""The position and projection of the camera: a pinhole that looks along the road by shifting its principal point.

World axes: X right, Y up, Z along the road, meters. The center line of the road is X = bend(Z), the ground Y = 0.
A pan shifts the principal point (a shift lens, not a rotation), so each row of the ground has one depth and planes
across the road keep their shape; then every view of a plane, and every motion of it, is exactly a homography.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]
"""float64 (N, 3) in world meters, or (N, 2) in pixels."""
Place: TypeAlias = tuple[float, float]
"""X and Z on the ground, meters."""
Way: TypeAlias = Sequence[Place]
"""The places of an object now and in the previous frame."""
Move: TypeAlias = Literal["drive", "static", "pan"]

HEIGHT_M = 1.35
LANE_M = -1.65
FOCAL = 0.85
HORIZON = 0.49


@dataclass(frozen=True)
class Camera:
    """`x = cx + focal * X / Z`, `y = cy - focal * Y / Z`, with X, Y, Z from `position`; pixel centers are integers."""

    time_s: float
    focal: float
    cx: float
    cy: float
    position: tuple[float, float, float]

    @property
    def intrinsics(self) -> Points:
        """The 3x3 matrix from a camera-centered point to homogeneous pixels."""
        return np.array([[self.focal, 0, self.cx], [0, -self.focal, self.cy], [0, 0, 1]])

    def project(self, relative: Points) -> Points:
        """Project camera-centered points (N, 3) with Z > 0 to pixels (N, 2)."""
        return np.asarray(relative[:, :2] / relative[:, 2:] * (self.focal, -self.focal) + (self.cx, self.cy))


@lru_cache(maxsize=16)
def _phases(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng((seed, 1)).uniform(0, 2 * np.pi, 8)


def bend(z: NDArray[np.float64] | float, *, seed: int) -> NDArray[np.float64]:
    """Return X of the road's center line at Z, meters."""
    phase = _phases(seed)
    return np.asarray(5 * np.sin(np.multiply(z, 2 * np.pi / 430) + phase[0]) + np.sin(np.multiply(z, 0.03) + phase[1]))


def point_beside(u: float, z: float, seed: int) -> Place:
    """Return the point (X, Z) that is `u` meters to the right of the center line."""
    return float(bend(z, seed=seed)) + u, z


def drive_z(t: float, seed: int) -> float:
    """Return Z of a drive at about 9.5 m/s after `t` seconds."""
    return float(9.5 * t + 5 * np.sin(t * 0.4 + _phases(seed)[2]))


def camera_at(t: float, *, seed: int, size: tuple[int, int], move: Move = "drive", shake: float = 0.0) -> Camera:
    """Return the camera at `t` seconds for an image of `size` = (height, width); `shake` is in pixels at width 640."""
    height, width = size
    z = drive_z(t, seed) if move == "drive" else 0.0
    x = float(bend(z, seed=seed) + LANE_M + (0.12 * np.sin(t * 0.7) if move == "drive" else 0.0))
    heading = float(bend(z + 0.5, seed=seed) - bend(z - 0.5, seed=seed))  # the slope dX/dZ
    if move == "pan":
        heading += 0.4 * float(np.sin(t * 0.8))
    focal = FOCAL * max(width, height * 4 / 3)
    tremor = np.sin(2 * np.pi * t * np.array([1.3, 2.9, 6.7, 1.7, 3.7, 7.9]) + _phases(seed)[2:])
    dx, dy = shake * width / 640 * (tremor.reshape(2, 3) @ np.array([0.4, 0.35, 0.25]))
    return Camera(t, focal, (width - 1) / 2 - focal * heading + dx, HORIZON * height + dy, (x, HEIGHT_M, z))
