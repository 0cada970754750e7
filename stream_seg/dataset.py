"""Pictures with label maps of the same name: DIR/SPLIT/NAME.png and DIR/SPLITannot/NAME.png."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from stream_seg.arrays import Image, Labels
from stream_seg.errors import SourceError

VOID = 255
"""The label of pixels that nothing learns from and nothing is scored at."""


@dataclass(frozen=True)
class Pairs:
    """A split held in memory, for training. Pictures uint8 (H, W, 3) BGR, labels uint8 (H, W)."""

    images: list[Image]
    labels: list[Labels]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image, Labels]:
        return self.images[index], self.labels[index]


def read_pairs(folder: Path, split: str, *, classes: int) -> Pairs:
    """A whole split. Raises SourceError at the first file that is missing or does not fit."""
    pairs = [read_pair(*paths, classes=classes) for paths in pair_paths(folder, split)]
    return Pairs([image for image, _ in pairs], [labels for _, labels in pairs])


def pair_paths(folder: Path, split: str) -> list[tuple[Path, Path]]:
    """The picture and the label map of every pair, by name. Raises SourceError naming what is missing."""
    images, annotations = folder / split, folder / f"{split}annot"
    for place in (images, annotations):
        if not place.is_dir():
            raise SourceError(
                f"{place}: no such folder; DIR/{split} and DIR/{split}annot are needed, with PNGs of the same names"
            )
    names = {path.name for path in images.glob("*.png")}
    annotated = {path.name for path in annotations.glob("*.png")}
    if not names:
        raise SourceError(f"{images}: no PNG in it")
    for name in sorted(names ^ annotated):
        alone, lacking = (images, annotations) if name in names else (annotations, images)
        raise SourceError(f"{alone / name}: {lacking / name} is missing")
    return [(images / name, annotations / name) for name in sorted(names)]


def read_pair(image_path: Path, label_path: Path, *, classes: int) -> tuple[Image, Labels]:
    """A picture and its labels; labels at or above `classes` become VOID. Raises SourceError."""
    image, labels = _read(image_path, cv2.IMREAD_COLOR), _read(label_path, cv2.IMREAD_UNCHANGED)
    if labels.ndim != 2:
        raise SourceError(
            f"{label_path}: {labels.shape[2]} channels; a label map has one, the index of the class, and no colours"
        )
    if image.shape[:2] != labels.shape:
        sizes = [" x ".join(map(str, array.shape[1::-1])) for array in (image, labels)]
        raise SourceError(f"{label_path}: {sizes[1]}, its picture is {sizes[0]}; both must be of one size")
    return image, np.where(labels < classes, labels, VOID).astype(np.uint8)


def _read(path: Path, flags: int) -> Image:
    array = cv2.imread(str(path), flags)
    if array is None:
        raise SourceError(f"{path}: not a picture that can be read")
    return array  # type: ignore[return-value]
