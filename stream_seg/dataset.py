"""Pictures with label maps of the same name: DIR/SPLIT/NAME.png (or .jpg) and DIR/SPLITannot/NAME.png."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from stream_seg.arrays import Image, Labels
from stream_seg.errors import SourceError

VOID = 255
"""The label of pixels that nothing learns from and nothing is scored at."""
PICTURES = (".png", ".jpg", ".jpeg")


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
    """A whole split. Raises SourceError at the first file that is missing or does not fit.

    Stricter than `read_pair`: a label beyond `classes` (void, as in CamVid) that is not VOID is refused. Whoever learns
    from it as void would learn without a class that the data has.
    """
    images, maps = [], []
    for image_path, label_path in pair_paths(folder, split):
        image, labels = read_pair(image_path, label_path, classes=classes, strict=True)
        images.append(image)
        maps.append(labels)
    if all((labels == VOID).all() for labels in maps):
        raise SourceError(f"{folder / f'{split}annot'}: every pixel is void; labels 0 to {classes - 1} are the classes")
    return Pairs(images, maps)


def pair_paths(folder: Path, split: str) -> list[tuple[Path, Path]]:
    """The picture and the label map of every pair, by name. Raises SourceError naming what is missing."""
    images, annotations = folder / split, folder / f"{split}annot"
    for place in (images, annotations):
        if not place.is_dir():
            raise SourceError(
                f"{place}: no such folder; DIR/{split} and DIR/{split}annot are needed, with files of the same names"
            )
    pictures = _by_stem(images, PICTURES)
    if not pictures:
        raise SourceError(f"{images}: no PNG or JPEG in it")
    maps = _by_stem(annotations, (".png",))
    for stem in sorted(pictures.keys() - maps.keys()):
        raise SourceError(f"{pictures[stem]}: {annotations / stem}.png is missing")
    for stem in sorted(maps.keys() - pictures.keys()):
        raise SourceError(f"{maps[stem]}: {images / stem}.png is missing")
    return [(pictures[stem], maps[stem]) for stem in sorted(pictures)]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            if path.stem in found:
                raise SourceError(f"{path}: {found[path.stem].name} has the same name; one picture each is needed")
            found[path.stem] = path
    return found


def read_pair(image_path: Path, label_path: Path, *, classes: int, strict: bool = False) -> tuple[Image, Labels]:
    """A picture and its labels; labels at or above `classes` become VOID. Raises SourceError.

    `strict` allows `classes` and VOID alone to be such.
    """
    image, labels = _read(image_path, cv2.IMREAD_COLOR), _read(label_path, cv2.IMREAD_UNCHANGED)
    if labels.ndim != 2:
        raise SourceError(
            f"{label_path}: {labels.shape[2]} channels; a label map has one, the index of the class, and no colours"
        )
    if image.shape[:2] != labels.shape:
        sizes = [" x ".join(map(str, array.shape[1::-1])) for array in (image, labels)]
        raise SourceError(f"{label_path}: {sizes[1]}, its picture is {sizes[0]}; both must be of one size")
    if labels.dtype != np.uint8:
        raise SourceError(f"{label_path}: {labels.dtype} a pixel; a label map has 8 bits, the index of the class")
    foreign = (labels > classes) & (labels != VOID)
    if strict and foreign.any():
        raise SourceError(
            f"{label_path}: label {labels[foreign].min()} is out of range; 0 to {classes - 1} are the classes,"
            f" {classes} and {VOID} are void"
        )
    return image, np.where(labels < classes, labels, VOID).astype(np.uint8)


def _read(path: Path, flags: int) -> Image:
    array = cv2.imread(str(path), flags)
    if array is None:
        raise SourceError(f"{path}: not a picture that can be read")
    return array  # type: ignore[return-value]
