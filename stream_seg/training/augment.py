"""Augmentation of one picture and its labels: pure functions of arrays and of a random generator."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.types import VOID, Image, Labels


def augmented(
    image: Image,
    labels: Labels,
    draw: np.random.Generator,
    *,
    crop: tuple[int, int],
    scale: tuple[float, float],
    wider: float = 1.0,
    sky: int | None = None,
    light: float = 0.0,
    rotate: float = 0.0,
) -> tuple[Image, Labels]:
    """Random scale, proportions, angle, crop, flip and colour: an image and labels of `crop` = (height, width).

    `wider` is what the network's input does to the proportions of a picture. What lies outside the picture is VOID.
    With `sky`, the pixels of that label get another weather half of the time; `light` is the chance of another light,
    `rotate` the largest angle in degrees.
    """
    if sky is not None and draw.random() < 0.5:
        image = weathered(image, labels == sky, draw)
    height, width = labels.shape
    factor = float(np.exp(draw.uniform(np.log(scale[0]), np.log(scale[1]))))
    stretch = float(np.exp(draw.uniform(-0.25, 0.25)))
    size = max(1, round(width * factor * stretch * wider)), max(1, round(height * factor / stretch))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)
    labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    if rotate:
        image, labels = rotated(image, labels, draw.uniform(-rotate, rotate))
    below, right = max(0, crop[0] - size[1]), max(0, crop[1] - size[0])
    image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    labels = np.pad(labels, ((0, below), (0, right)), constant_values=VOID)
    top, left = (int(draw.integers(labels.shape[axis] - crop[axis] + 1)) for axis in (0, 1))
    image, labels = (array[top : top + crop[0], left : left + crop[1]] for array in (image, labels))
    if draw.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    image, labels = np.ascontiguousarray(image), np.ascontiguousarray(labels)
    if light and draw.random() < light:
        image = lit(image, draw)
    return coloured(image, draw), labels


def rotated(image: Image, labels: Labels, degrees: float) -> tuple[Image, Labels]:
    """Both rotated about their centre, anticlockwise; what comes in from outside is VOID."""
    height, width = labels.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    image = np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    labels = np.asarray(
        cv2.warpAffine(labels, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=VOID), np.uint8
    )
    return image, labels


def pasted(
    onto: tuple[Image, Labels], other: tuple[Image, Labels], classes: Sequence[int], draw: np.random.Generator
) -> tuple[Image, Labels]:
    """A crop with things of another of the same size, where they stood: each of `classes` with a chance of one half.

    After ClassMix (Olsson et al., WACV 2021). The edges are blended, so that no outline gives away what was put there.
    """
    chosen = [label for label in classes if draw.random() < 0.5]
    there = np.isin(other[1], chosen)
    cover = cv2.GaussianBlur(there.astype(np.float32), (0, 0), 0.7)[..., None]
    image = onto[0] + cover * (other[0].astype(np.float32) - onto[0])
    return np.rint(image).astype(np.uint8), np.where(there, other[1], onto[1])


def repainted(image: Image, labels: Labels, classes: Sequence[int], draw: np.random.Generator) -> Image:
    """The picture with each of `classes` as it is or in one of two other paints: a tint, and a light of its own.

    A house is not always brighter than the pole before it, nor a coat ever of one colour.
    """
    paint = np.zeros(256, np.uint8)
    paint[list(classes)] = draw.integers(0, 3, len(classes))
    worn = paint[labels]
    for number in (1, 2):
        tint = np.exp(draw.normal(0, 0.2, 3)).astype(np.float32)
        other = np.clip(lit(image, draw) * tint, 0, 255)
        cover = cv2.GaussianBlur((worn == number).astype(np.float32), (0, 0), 1)[..., None]
        image = np.rint(image + cover * (other - image)).astype(np.uint8)
    return image


def weathered(image: Image, sky: NDArray[np.bool_], draw: np.random.Generator) -> Image:
    """The picture under a sky from deep blue to white, paler towards the horizon, with some of its own texture.

    CamVid was filmed under pale skies: without this a network takes a blue one for a sign.
    """
    blue = np.array([[[draw.integers(98, 122), draw.integers(0, 200), draw.integers(110, 256)]]], np.uint8)
    top = np.asarray(cv2.cvtColor(blue, cv2.COLOR_HSV2BGR), np.float32)[0, 0]
    horizon = top + (255 - top) * draw.uniform(0, 0.8)
    down = np.linspace(0, 1, len(image), dtype=np.float32)[:, None, None] ** draw.uniform(0.5, 2)
    grain = cv2.GaussianBlur(image, (0, 0), 1) - cv2.GaussianBlur(image.astype(np.float32), (0, 0), 15)
    painted = top + (horizon - top) * down + draw.uniform(0, 1.5) * grain
    cover = cv2.GaussianBlur(sky.astype(np.float32), (0, 0), 1)[..., None] * draw.uniform(0.5, 1)
    return np.asarray(np.clip(image + cover * (painted - image), 0, 255)).astype(np.uint8)


def lit(image: Image, draw: np.random.Generator) -> Image:
    """The picture under another light: a gamma of a half to 2, and brighter and darker parts that flow into each other.

    What is before a bright wall in one drive is before one in shadow in another.
    """
    ramp = 255 * (np.arange(256) / 255) ** np.exp(draw.uniform(-np.log(2), np.log(2)))
    coarse = draw.normal(0, draw.uniform(0, 0.35), (4, 5)).astype(np.float32)
    gain = np.exp(cv2.resize(coarse, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC))
    return np.asarray(np.clip(ramp.astype(np.float32)[image] * gain[..., None], 0, 255)).astype(np.uint8)


def coloured(image: Image, draw: np.random.Generator) -> Image:
    """Random hue, saturation, gamma, contrast and brightness, now and then blur and noise."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + draw.integers(-9, 10)) % 180
    hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=draw.uniform(0.6, 1.4))
    ramp = (np.arange(256) / 255) ** draw.uniform(0.7, 1.4)
    ramp = (ramp - 0.5) * draw.uniform(0.7, 1.3) + 0.5 + draw.uniform(-0.15, 0.15)
    changed = cv2.LUT(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.clip(255 * ramp, 0, 255).astype(np.uint8))
    if draw.random() < 0.15:
        changed = cv2.GaussianBlur(changed, (0, 0), draw.uniform(0.4, 1.2))
    if draw.random() < 0.15:
        noise = draw.normal(0, draw.uniform(2, 8), changed.shape)
        changed = np.clip(changed + noise, 0, 255)
    return np.asarray(changed).astype(np.uint8)
