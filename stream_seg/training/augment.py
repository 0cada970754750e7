"""Augmentation of one image and its labels: pure functions of arrays, a recipe and a random generator."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.training.recipe import Recipe
from stream_seg.types import VOID, Image, Labels


def augment(image: Image, labels: Labels, recipe: Recipe, rng: np.random.Generator) -> tuple[Image, Labels]:
    """Scale, stretch, rotate, crop, flip and recolour at random. Return arrays of the size of the recipe's crop.

    The aspect ratio changes as by the network's input. Pixels outside the image are VOID.
    """
    if recipe.sky is not None and rng.random() < 0.5:
        image = change_sky(image, labels == recipe.sky, rng)
    crop, (height, width) = recipe.crop, labels.shape
    widen = recipe.size[1] / recipe.size[0] / (width / height)
    factor = float(np.exp(rng.uniform(*np.log(recipe.scale))))
    stretch = float(np.exp(rng.uniform(-0.25, 0.25)))
    size = max(1, round(width * factor * stretch * widen)), max(1, round(height * factor / stretch))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
    labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    if recipe.rotate:
        image, labels = rotate_image(image, labels, rng.uniform(-recipe.rotate, recipe.rotate))
    below, right = max(0, crop[0] - size[1]), max(0, crop[1] - size[0])
    image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    labels = np.pad(labels, ((0, below), (0, right)), constant_values=VOID)
    top, left = (int(rng.integers(labels.shape[axis] - crop[axis] + 1)) for axis in (0, 1))
    image, labels = (array[top : top + crop[0], left : left + crop[1]] for array in (image, labels))
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    image, labels = np.ascontiguousarray(image), np.ascontiguousarray(labels)
    if recipe.light and rng.random() < recipe.light:
        image = change_light(image, rng)
    return jitter_colours(image, rng), labels


def rotate_image(image: Image, labels: Labels, degrees: float) -> tuple[Image, Labels]:
    """Rotate both anticlockwise about their centre; pixels from outside the image are VOID."""
    height, width = labels.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    image = np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    rotated = cv2.warpAffine(labels, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=VOID)
    return image, np.asarray(rotated, np.uint8)


def paste_classes(
    target: tuple[Image, Labels], source: tuple[Image, Labels], classes: Sequence[int], rng: np.random.Generator
) -> tuple[Image, Labels]:
    """Paste `classes` of a crop in place into another of the same size, each with a chance of one half.

    After ClassMix (Olsson et al., WACV 2021). Edges are blended, so that no outline reveals pasted pixels.
    """
    pasted = [label for label in classes if rng.random() < 0.5]
    mask = np.isin(source[1], pasted)
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)[..., None]
    image = target[0] + alpha * (source[0].astype(np.float32) - target[0])
    return np.rint(image).astype(np.uint8), np.where(mask, source[1], target[1])


def repaint_classes(image: Image, labels: Labels, classes: Sequence[int], rng: np.random.Generator) -> Image:
    """Repaint each of `classes` with a chance of two thirds, in one of two paints of random tint and light.

    Otherwise a network learns brightness relations of its training data, such as a building brighter than the pole
    before it.
    """
    paint = np.zeros(256, np.uint8)
    paint[list(classes)] = rng.integers(0, 3, len(classes))
    paint_map = paint[labels]
    for number in (1, 2):
        tint = np.exp(rng.normal(0, 0.2, 3)).astype(np.float32)
        painted = np.clip(change_light(image, rng) * tint, 0, 255)
        alpha = cv2.GaussianBlur((paint_map == number).astype(np.float32), (0, 0), 1)[..., None]
        image = np.rint(image + alpha * (painted - image)).astype(np.uint8)
    return image


def change_sky(image: Image, sky: NDArray[np.bool_], rng: np.random.Generator) -> Image:
    """Paint a sky from deep blue to white, paler towards the horizon, keeping some of its texture.

    CamVid was filmed under pale skies: without this a network labels blue sky as sign.
    """
    blue = np.array([[[rng.integers(98, 122), rng.integers(0, 200), rng.integers(110, 256)]]], np.uint8)
    top = np.asarray(cv2.cvtColor(blue, cv2.COLOR_HSV2BGR), np.float32)[0, 0]
    horizon = top + (255 - top) * rng.uniform(0, 0.8)
    gradient = np.linspace(0, 1, len(image), dtype=np.float32)[:, None, None] ** rng.uniform(0.5, 2)
    texture = cv2.GaussianBlur(image, (0, 0), 1) - cv2.GaussianBlur(image.astype(np.float32), (0, 0), 15)
    painted = top + (horizon - top) * gradient + rng.uniform(0, 1.5) * texture
    alpha = cv2.GaussianBlur(sky.astype(np.float32), (0, 0), 1)[..., None] * rng.uniform(0.5, 1)
    return np.asarray(np.clip(image + alpha * (painted - image), 0, 255)).astype(np.uint8)


def change_light(image: Image, rng: np.random.Generator) -> Image:
    """Apply a gamma from a half to 2 and a smooth field of brighter and darker areas."""
    curve = 255 * (np.arange(256) / 255) ** np.exp(rng.uniform(-np.log(2), np.log(2)))
    coarse = rng.normal(0, rng.uniform(0, 0.35), (4, 5)).astype(np.float32)
    gain = np.exp(cv2.resize(coarse, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC))
    return np.asarray(np.clip(curve.astype(np.float32)[image] * gain[..., None], 0, 255)).astype(np.uint8)


def jitter_colours(image: Image, rng: np.random.Generator) -> Image:
    """Vary hue, saturation, gamma, contrast and brightness; add blur and noise with a chance of 0.15 each."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + rng.integers(-9, 10)) % 180
    hsv[..., 1] = cv2.convertScaleAbs(hsv[..., 1], alpha=rng.uniform(0.6, 1.4))
    curve = (np.arange(256) / 255) ** rng.uniform(0.7, 1.4)
    curve = (curve - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.15, 0.15)
    result = cv2.LUT(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.clip(255 * curve, 0, 255).astype(np.uint8))
    if rng.random() < 0.15:
        result = cv2.GaussianBlur(result, (0, 0), rng.uniform(0.4, 1.2))
    if rng.random() < 0.15:
        noise = rng.normal(0, rng.uniform(2, 8), result.shape)
        result = np.clip(result + noise, 0, 255)
    return np.asarray(result).astype(np.uint8)
