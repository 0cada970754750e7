"""Paint an image from far to near, and record the plane of the scene that each pixel shows.

All surfaces are planes, so one plane number per pixel determines both label and motion: the label by a table, the
motion by the homography from the current view of the plane to its previous view.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.synth.camera import Camera, Place, Points
from stream_seg.synth.surfaces import Colour, Mesh, Texture, shade_texture
from stream_seg.types import Image, Labels

NEAR_M = 0.4
SUBPIXEL_BITS = 4
HAZE_STEPS = 48
CORNERS = np.array([[1, 0, 0], [0, 1, 0], [-1, 1, 1], [0, 0, 1]])
"""Maps three corners of a parallelogram (top left, top right, bottom left) to all four, in circular order."""


def to_fixed(pixels: Points) -> NDArray[np.int32]:
    """Convert pixels to OpenCV's fixed point of SUBPIXEL_BITS."""
    return np.asarray(np.rint(pixels * 2**SUBPIXEL_BITS), np.int32)


def clip_near(points: Points) -> Points:
    """Return the part of a camera-centered polygon (N, 3) at least NEAR_M ahead, possibly empty."""
    ahead = points[:, 2] - NEAR_M
    if ahead.min() >= 0:
        return points
    clipped = []
    for i in range(len(points)):
        if ahead[i - 1] >= 0:
            clipped.append(points[i - 1])
        if (ahead[i - 1] >= 0) != (ahead[i] >= 0):
            share = ahead[i - 1] / (ahead[i - 1] - ahead[i])
            clipped.append(points[i - 1] + share * (points[i] - points[i - 1]))
    return np.array(clipped).reshape(-1, 3)


Paint: TypeAlias = Callable[["Canvas"], None]
DrawItem: TypeAlias = tuple[float, Paint]
"""The Z by which items are sorted, far before near, and the function that paints the item."""


class Canvas:
    """An image to paint in place. Distant surfaces fade to the colour `haze`, 63 % of it at `clear_m`."""

    def __init__(self, image: Image, now: Camera, before: Camera, haze: Colour, clear_m: float = 300.0) -> None:
        self.image, self.now, self.before, self.haze, self.clear_m = image, now, before, haze, clear_m
        self.planes: NDArray[np.uint16] = np.zeros(image.shape[:2], np.uint16)
        self._labels: list[int] = []
        self._corners: list[Points] = []
        self._corners_before: list[Points] = []

    def register_planes(self, label: int, corners: Points, before: Points | None = None) -> int:
        """Register planes by three points each, (N, 3, 3), now and in the previous frame. Return the first number."""
        first = len(self._labels)
        self._labels += [label] * len(corners)
        self._corners.append(corners)
        self._corners_before.append(corners if before is None else before)
        return first

    def _haze_at(self, distance_m: float) -> float:
        """Return the share of haze at this distance, 0 to 1, in steps too small to see."""
        return round(HAZE_STEPS * (1 - math.exp(-max(distance_m, 0.0) / self.clear_m))) / HAZE_STEPS

    def is_visible(self, place: Place, radius_m: float) -> bool:
        """Return True if an upright object at `place` (X, Z) may be in view."""
        x, ahead = place[0] - self.now.position[0], place[1] - self.now.position[2] + radius_m
        left, right = (edge * ahead / self.now.focal for edge in (-self.now.cx, self.planes.shape[1] - self.now.cx))
        return ahead > NEAR_M and left - radius_m < x < right + radius_m

    def draw_mesh(
        self, mesh: Mesh, at: Points, label: int, *, before: Points | None = None, cull: bool = False
    ) -> None:
        """Paint the faces of a mesh in their order, its origin at `at` (3,).

        `before`: its corners in the world in the previous frame (N, 3). `cull` omits faces seen from behind.
        """
        points = mesh.points + at
        relative = points - self.now.position
        depth = relative[:, 2]
        if depth.max() < NEAR_M:
            return
        whole = depth.min() >= NEAR_M
        pixels = self.now.project(relative if whole else np.maximum(relative, (-np.inf, -np.inf, NEAR_M)))
        if self._bounds_in_view(pixels) is None:
            return
        haze = self._haze_at(float(depth.mean()))
        colours = (mesh.colours * (1 - haze) + np.array(self.haze) * haze).tolist()
        fixed = to_fixed(pixels)
        planes = mesh.plane_corners
        first = self.register_planes(label, points[planes], None if before is None else before[planes])
        # corners in clockwise order are seen from the front
        shown = np.flatnonzero(np.linalg.det(relative[planes]) < 0).tolist() if cull else range(len(mesh.ends))
        for face in shown:
            start, end = mesh.ends[face - 1] if face else 0, mesh.ends[face]
            outline = fixed[start:end] if whole else to_fixed(self.now.project(clip_near(relative[start:end])))
            if len(outline):
                cv2.fillPoly(self.image, [outline], colours[face], cv2.LINE_AA, SUBPIXEL_BITS)
                cv2.fillPoly(self.planes, [outline], first + face, cv2.LINE_8, SUBPIXEL_BITS)

    def _bounds_in_view(self, pixels: Points) -> tuple[float, float, float, float] | None:
        """Return the smallest and largest x and y of a polygon; None if it is out of view or would only flicker."""
        (x0, y0), (x1, y1) = pixels.min(0).tolist(), pixels.max(0).tolist()
        height, width = self.planes.shape
        visible = x1 >= 0 and y1 >= 0 and x0 < width and y0 < height and (x1 - x0) + (y1 - y0) > 0.33
        return (x0, y0, x1, y1) if visible else None

    def draw_texture(
        self,
        texture: Texture,
        corners: Points,
        label: int | None,
        *,
        before: Points | None = None,
        light: float = 1.0,
        distance_m: float | None = None,
    ) -> None:
        """Paint a texture on the parallelogram of `corners` (3, 3): top left, top right, bottom left.

        With `label` None, labels and motion stay (a shadow). `distance_m` overrides the distance for the haze.
        """
        relative = corners - self.now.position
        outline = clip_near(CORNERS @ relative)
        if not len(outline):
            return
        bounds = self._bounds_in_view(self.now.project(outline))
        if bounds is None:
            return
        x0, y0, x1, y1 = bounds
        height, width = self.planes.shape
        left, right = max(math.floor(x0), 0), min(math.ceil(x1) + 1, width)
        top, bottom = max(math.floor(y0), 0), min(math.ceil(y1) + 1, height)
        h, w = texture.pixels.shape[:2]
        halve_x, halve_y = int(math.log2(max(w / (x1 - x0 + 1), 1))), int(math.log2(max(h / (y1 - y0 + 1), 1)))
        haze = self._haze_at(float(outline[:, 2].mean()) if distance_m is None else distance_m)
        level = shade_texture(texture, halve_x, halve_y, round(light, 2), haze, self.haze)
        # from the texture to a window of the image; the center of texel (0, 0) is half a texel inside
        u, v = (relative[1] - relative[0]) / level.shape[1], (relative[2] - relative[0]) / level.shape[0]
        x, y, z = np.array((u, v, relative[0] + (u + v) / 2)).T
        focal, at_x, at_y = self.now.focal, self.now.cx - left, self.now.cy - top
        homography = np.array([focal * x + at_x * z, at_y * z - focal * y, z])
        painted = cv2.warpPerspective(level, homography, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
        target = self.image[top:bottom, left:right]
        cover = cv2.extractChannel(painted, 3)
        cv2.multiply(target, cv2.cvtColor(cv2.bitwise_not(cover), cv2.COLOR_GRAY2BGR), dst=target, scale=1 / 255)
        cv2.add(target, cv2.cvtColor(painted, cv2.COLOR_BGRA2BGR), dst=target)
        if label is not None:
            number = self.register_planes(label, corners[None], None if before is None else before[None])
            np.copyto(self.planes[top:bottom, left:right], np.uint16(number), where=cover > texture.label_alpha)

    def labels(self) -> Labels:
        """Return the class of every pixel, uint8 (H, W)."""
        return np.array(self._labels, np.uint8).take(self.planes)

    def motion(self) -> NDArray[np.float32]:
        """Return the motion since the previous frame, float32 (H, W, 2): (dx, dy) to add to (x, y)."""
        present = np.swapaxes(np.concatenate(self._corners) - self.now.position, 1, 2)
        past = np.swapaxes(np.concatenate(self._corners_before) - self.before.position, 1, 2)
        try:
            inverse = np.linalg.inv(present)
        except np.linalg.LinAlgError:  # a plane seen from its edge: correct for the line of pixels it covers
            inverse = np.linalg.pinv(present)
        views = self.before.intrinsics @ past @ inverse @ np.linalg.inv(self.now.intrinsics)
        table = views.reshape(-1, 9).T.astype(np.float32)
        height, width = self.planes.shape
        x = np.arange(width, dtype=np.float32)
        out = np.empty((height, width, 2), np.float32)
        for top in range(0, height, 32):  # bands that fit into the cache
            band = self.planes[top : top + 32]
            y = np.arange(top, top + len(band), dtype=np.float32)[:, None]
            h = [row.take(band) for row in table]
            scale = 1 / (h[6] * x + h[7] * y + h[8])
            out[top : top + 32, :, 0] = (h[0] * x + h[1] * y + h[2]) * scale - x
            out[top : top + 32, :, 1] = (h[3] * x + h[4] * y + h[5]) * scale - y
        return out
