"""Read images with label maps of the same name: DIR/SPLIT/NAME.png (or .jpg) and DIR/SPLITannot/NAME.png."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil

from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import ConfigError, SourceError
from stream_seg.sources.image_header import read_image_file
from stream_seg.sources.images import MAX_PIXELS
from stream_seg.types import VOID, Classes, Image, Labels

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
GREY = 0
CHANNELS = {GREY: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels of a PNG by its colour type; 3 is an index into a palette."""


@dataclass(frozen=True)
class Pairs:
    """The images, uint8 (H, W, 3) BGR, and labels, uint8 (H, W), of a split, in memory for training."""

    images: list[Image]
    labels: list[Labels]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image, Labels]:
        return self.images[index], self.labels[index]


def read_pairs(folder: Path, split: str, *, classes: int) -> Pairs:
    """Read a whole split. Raises SourceError at the first file that is missing or invalid."""
    images, maps, paths = list[Image](), list[Labels](), list_pairs(folder, split)
    available, size = psutil.virtual_memory().available, 0
    for image_path, label_path in paths:
        image, labels = read_pair(image_path, label_path, classes=classes)
        images.append(image)
        maps.append(labels)
        size += image.nbytes + labels.nbytes
        total = size * len(paths) // len(images)
        if total > available:
            raise SourceError(
                f"{folder / split}: {len(paths)} images such as {image_path.name} take {total / 2**30:.1f} GiB of"
                f" memory; {available / 2**30:.1f} GiB are available; use smaller or fewer images"
            )
    if all((labels == VOID).all() for labels in maps):
        raise SourceError(f"{folder / f'{split}annot'}: every pixel is void; labels of classes are 0 to {classes - 1}")
    return Pairs(images, maps)


def list_pairs(folder: Path, split: str) -> list[tuple[Path, Path]]:
    """Return the paths of image and label map of every pair, by name. Raises SourceError for a missing file."""
    images, annotations = folder / split, folder / f"{split}annot"
    try:
        for place in (images, annotations):
            if not place.is_dir():
                expected = f"expected DIR/{split} and DIR/{split}annot with files of the same names"
                raise SourceError(f"{place}: no such folder; {expected}")
        image_paths, map_paths = _list_by_stem(images, IMAGE_SUFFIXES), _list_by_stem(annotations, (".png",))
    except OSError as error:
        raise SourceError(f"{error.filename}: {error.strerror}") from error
    if not image_paths:
        raise SourceError(f"{images}: contains no PNG or JPEG")
    for stem in sorted(image_paths.keys() - map_paths.keys()):
        raise SourceError(f"{image_paths[stem]}: {annotations / stem}.png is missing")
    for stem in sorted(map_paths.keys() - image_paths.keys()):
        raise SourceError(f"{map_paths[stem]}: {images / stem}.png is missing")
    return [(image_paths[stem], map_paths[stem]) for stem in sorted(image_paths)]


def _list_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            if path.stem in paths:
                raise SourceError(f"{path}: {paths[path.stem].name} has the same name; expected one image per name")
            paths[path.stem] = path
    return paths


def read_pair(image_path: Path, label_path: Path, *, classes: int) -> tuple[Image, Labels]:
    """Return an image and its labels, as `read_labels` does. Raises SourceError."""
    image = cv2.imdecode(np.frombuffer(_read_bytes(image_path), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{image_path}: not a readable image")
    return image, read_labels(label_path, classes=classes, size=image.shape[:2])  # type: ignore[return-value]


def read_labels(path: Path, *, classes: int, size: tuple[int, ...]) -> Labels:
    """Return the label map of an image of `size` = (height, width). The label `classes`, void in CamVid, becomes VOID.

    The file is a PNG, 8-bit grey or, as in VOC, with a palette. Raises SourceError, also for a label beyond `classes`
    other than VOID: taken for void, a class of the data would be ignored.
    """
    labels = _decode_labels(path)
    if labels.shape != tuple(size):
        sizes = [" x ".join(map(str, shape[::-1])) for shape in (labels.shape, size)]
        raise SourceError(f"{path}: size {sizes[0]}; expected that of its image, {sizes[1]}")
    foreign = (labels > classes) & (labels != VOID)
    if foreign.any():
        raise SourceError(
            f"{path}: label {labels[foreign].min()} is out of range; expected 0 to {classes - 1}, or {classes} or"
            f" {VOID} for void; the network has {classes} classes"
        )
    return np.where(labels < classes, labels, VOID).astype(np.uint8)


def _read_bytes(path: Path) -> bytes:
    """Return the content of an image file. Raises SourceError for another file or too large an image."""
    try:
        image_file = read_image_file(path, max_pixels=MAX_PIXELS, limit=f"{MAX_PIXELS}")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    if image_file is None:
        raise SourceError(f"{path}: not a readable image")
    return image_file[0]


def _decode_labels(path: Path) -> Labels:
    """Return the values of a PNG with one channel; of a palette PNG, the indices. Raises SourceError."""
    png = _read_bytes(path)
    if len(png) < 26 or not png.startswith(b"\x89PNG"):
        raise SourceError(f"{path}: not a readable image; expected a PNG")
    bits, colour = png[24:26]
    channels = CHANNELS.get(colour, 1)
    if channels != 1:
        raise SourceError(f"{path}: {channels} channels; expected one, with the index of the class instead of colours")
    if colour == GREY:
        if bits != 8:  # OpenCV scales fewer bits to 0 to 255
            raise SourceError(f"{path}: {bits} bits per pixel; expected 8, the index of the class")
        labels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    else:
        labels = _decode_palette_indices(png)
    if labels is None:
        raise SourceError(f"{path}: not a readable image")
    return labels  # type: ignore[return-value]


def _decode_palette_indices(png: bytes) -> Labels | None:
    """Return the palette indices of a PNG, which OpenCV cannot read. None for an unreadable file."""
    import av

    decoder = av.CodecContext.create("png", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    try:
        frames = decoder.decode(av.Packet(png)) or decoder.decode(None)
    except av.FFmpegError:
        return None
    return np.asarray(frames[0].to_ndarray()[0], np.uint8) if frames else None


def synth_label_table(classes: Classes, *, of: str = "the recipe") -> Labels:
    """Return the label in `classes` for each label of synth://road, by name: uint8 (256,), VOID for other names.

    Raises ConfigError if no name is shared; `of` names the owner of the classes.
    """
    table = np.full(256, VOID, np.uint8)
    for label, name in enumerate(CAMVID.names):
        if name in classes.names:
            table[label] = classes.names.index(name)
    if (table == VOID).all():
        raise ConfigError(f"synth://road draws {', '.join(CAMVID.names)}; none of them is among the classes of {of}")
    return table
