"""Pictures with label maps of the same name: DIR/SPLIT/NAME.png (or .jpg) and DIR/SPLITannot/NAME.png."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil

from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import ConfigError, SourceError
from stream_seg.sources.image_header import MAX_PIXELS, read_picture
from stream_seg.types import VOID, Classes, Image, Labels

PICTURES = (".png", ".jpg", ".jpeg")
GREY = 0
CHANNELS = {GREY: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a PNG, by its colour type; 3 is an index into a palette."""


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
    images, maps, paths = list[Image](), list[Labels](), pair_paths(folder, split)
    free, held = psutil.virtual_memory().available, 0
    for image_path, label_path in paths:
        image, labels = read_pair(image_path, label_path, classes=classes)
        images.append(image)
        maps.append(labels)
        held += image.nbytes + labels.nbytes
        whole = held * len(paths) // len(images)
        if whole > free:
            raise SourceError(
                f"{folder / split}: {len(paths)} pictures such as {image_path.name} take {whole / 2**30:.1f} GiB of"
                f" memory, of which {free / 2**30:.1f} are free; make them smaller, or fewer"
            )
    if all((labels == VOID).all() for labels in maps):
        raise SourceError(f"{folder / f'{split}annot'}: every pixel is void; labels 0 to {classes - 1} are the classes")
    return Pairs(images, maps)


def pair_paths(folder: Path, split: str) -> list[tuple[Path, Path]]:
    """The picture and the label map of every pair, by name. Raises SourceError naming what is missing."""
    try:
        return _pair_paths(folder / split, folder / f"{split}annot", split=split)
    except OSError as error:
        raise SourceError(f"{error.filename}: {error.strerror}") from error


def _pair_paths(images: Path, annotations: Path, *, split: str) -> list[tuple[Path, Path]]:
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


def read_pair(image_path: Path, label_path: Path, *, classes: int) -> tuple[Image, Labels]:
    """A picture and its labels, as `read_labels` gives them. Raises SourceError."""
    image = cv2.imdecode(np.frombuffer(_picture(image_path), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{image_path}: not a picture that can be read")
    return image, read_labels(label_path, classes=classes, size=image.shape[:2])  # type: ignore[return-value]


def read_labels(path: Path, *, classes: int, size: tuple[int, ...]) -> Labels:
    """The label map of a picture of `size` = (height, width); the label `classes` (void, as in CamVid) becomes VOID.

    A PNG, grey of 8 bits or, as VOC's, the index in a palette. Raises SourceError, also for a label beyond `classes`
    that is not VOID: as void it would be left out, and with it a class that the data has.
    """
    labels = _indices(path)
    if labels.shape != tuple(size):
        sizes = [" x ".join(map(str, shape[::-1])) for shape in (labels.shape, size)]
        raise SourceError(f"{path}: {sizes[0]}, its picture is {sizes[1]}; both must be of one size")
    foreign = (labels > classes) & (labels != VOID)
    if foreign.any():
        raise SourceError(
            f"{path}: label {labels[foreign].min()} is out of range; 0 to {classes - 1} are the classes,"
            f" {classes} and {VOID} are void; the network has {classes} classes"
        )
    return np.where(labels < classes, labels, VOID).astype(np.uint8)


def _picture(path: Path) -> bytes:
    """The file of a picture. Raises SourceError where it is none, or too large."""
    try:
        found = read_picture(path, max_pixels=MAX_PIXELS, limit=f"{MAX_PIXELS}")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    if found is None:
        raise SourceError(f"{path}: not a picture that can be read")
    return found[0]


def _indices(path: Path) -> Labels:
    """What a PNG of one channel says of each pixel. Raises SourceError."""
    png = _picture(path)
    if len(png) < 26 or not png.startswith(b"\x89PNG"):
        raise SourceError(f"{path}: not a picture that can be read; a label map is a PNG")
    bits, colour = png[24:26]
    if CHANNELS.get(colour, 1) != 1:
        raise SourceError(
            f"{path}: {CHANNELS[colour]} channels; a label map has one, the index of the class, and no colours"
        )
    if colour == GREY and bits != 8:  # OpenCV spreads fewer over 0 to 255
        raise SourceError(f"{path}: {bits} bits a pixel; a label map has 8, the index of the class")
    grey = colour == GREY
    labels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE) if grey else _uncoloured(png)
    if labels is None:
        raise SourceError(f"{path}: not a picture that can be read")
    return labels  # type: ignore[return-value]


def _uncoloured(png: bytes) -> Labels | None:
    """The indices into the palette of a PNG, which OpenCV has no way to ask for. None where it cannot be read."""
    import av

    decoder = av.CodecContext.create("png", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    try:
        frames = decoder.decode(av.Packet(png)) or decoder.decode(None)
    except av.FFmpegError:
        return None
    return np.asarray(frames[0].to_ndarray()[0], np.uint8) if frames else None


def synth_labels(classes: Classes, *, of: str = "the recipe") -> Labels:
    """The label in `classes` of each label that synth://road draws, by name; uint8 (256,), VOID for what has none.

    Raises ConfigError where no name is shared with the classes `of` whom they are.
    """
    table = np.full(256, VOID, np.uint8)
    for label, name in enumerate(CAMVID.names):
        if name in classes.names:
            table[label] = classes.names.index(name)
    if (table == VOID).all():
        raise ConfigError(f"synth://road draws {', '.join(CAMVID.names)}; none of them is among {of}'s classes")
    return table
