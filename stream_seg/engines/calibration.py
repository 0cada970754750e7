"""Post-training quantization (NNCF), and the images that it is calibrated on and compared with float32 on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from stream_seg.datasets.labelled import read_labels
from stream_seg.engines.cache_entry import hash_bytes
from stream_seg.errors import ConfigError, NetworkError, SourceError
from stream_seg.frame import read_image
from stream_seg.installation import install_hint
from stream_seg.ops.resize import resize_image
from stream_seg.sources.images import MAX_PIXELS, decode_image_files, list_image_files
from stream_seg.sources.uri import Source, parse_source
from stream_seg.sources.video import decode_video
from stream_seg.synth import render
from stream_seg.types import Image, Labels

IMAGE_COUNT = 96
"""Default number of images. Ranges settle with a few dozen; the rest makes the comparison more reliable."""
TIMEOUTS_S = (5.0, 5.0)
"""For opening a video, and for its next data."""
HELD_BACK = 4
"""Every fourth image is left out of the calibration, so that the comparison also covers unseen images."""


@dataclass(frozen=True)
class Sample:
    """An image, uint8 (H, W, 3) at the network's input size, and its truth at its original size, if known."""

    name: str
    image: Image
    truth: Labels | None = None


@dataclass(frozen=True)
class CalibrationSet:
    """Images that are calibrated on (`fit`), images that are not (`held_back`), and their origin. Both are compared."""

    source: str
    fit: tuple[Sample, ...]
    held_back: tuple[Sample, ...]

    def calibration_digest(self, settings: QuantizeSettings) -> str:
        """Return the SHA-256 of the images that are calibrated on, the settings, and NNCF's version."""
        text = f"{settings!r} NNCF {nncf_version()}"
        return hash_bytes(b"".join([text.encode(), *(sample.image.tobytes() for sample in self.fit)]))

    def images_digest(self) -> str:
        """Return the SHA-256 of all images and their truths, which identifies what an accuracy report compared."""
        samples = (*self.fit, *self.held_back)
        truths = (b"" if s.truth is None else repr(s.truth.shape).encode() + s.truth.tobytes() for s in samples)
        return hash_bytes(b"".join([*(sample.image.tobytes() for sample in samples), *truths]))


def sample_source(
    uri: str | None, size: tuple[int, int], *, classes: int, labels: Path | None = None, count: int = IMAGE_COUNT
) -> CalibrationSet:
    """Return up to `count` images of a folder or video, evenly spaced, at `size` = (height, width).

    `labels` is a folder of label maps with the names of the images, ending in .png. Every fourth image is held back.
    None: images of the synthetic drive, one second apart, to compare on. Raises SourceError for missing, unreadable,
    mismatching or too few images, ConfigError for a source without an end.
    """
    if uri is None:
        if labels is not None:
            raise ConfigError("labels: needs calibrate, the images that the labels are for")
        images = (render(7, number, 640, 360, rate=1.0).image for number in range(24))
        drive = tuple(Sample(f"frame {number}", resize_image(image, size)) for number, image in enumerate(images))
        return CalibrationSet("the synthetic drive", drive[::2], drive[1::2])
    source = parse_source(uri)
    if source.kind == "synth" or source.live:
        raise ConfigError(f"{source.display}: cannot be calibrated on; allowed are a folder of images and a video file")
    if labels is not None and source.kind != "images":
        raise ConfigError(f"{source.display}: labels need a folder of images, this is a video")
    is_folder = source.kind == "images"
    samples = _read_images(source, size, count, labels, classes) if is_folder else _read_video(source, size)
    selected = sample_evenly(samples, count)
    if len(selected) < 4:
        raise SourceError(f"{source.display}: {len(selected)} images; at least 4 are needed, a few dozen are good")
    fit = tuple(sample for place, sample in enumerate(selected) if place % HELD_BACK != HELD_BACK - 1)
    return CalibrationSet(source.display, fit, tuple(selected[HELD_BACK - 1 :: HELD_BACK]))


def sample_evenly(samples: Iterator[Sample], count: int) -> list[Sample]:
    """Return at most `count` evenly spaced samples of a stream of unknown length, from its first one on.

    Keeps the samples whose number is a multiple of a step, which doubles when there are 2 * `count` of them, so memory
    is bounded.
    """
    selected: list[Sample] = []
    step = 1
    for number, sample in enumerate(samples):
        if number % step:
            continue
        selected.append(sample)
        if len(selected) >= 2 * count:
            del selected[1::2]
            step *= 2
    if len(selected) <= count:
        return selected
    return [selected[round(place)] for place in np.linspace(0, len(selected) - 1, count)]


def _read_video(source: Source, size: tuple[int, int]) -> Iterator[Sample]:
    with closing(decode_video(source, {}, timeouts_s=TIMEOUTS_S, max_pixels=MAX_PIXELS, threads=0)) as frames:
        for number, frame in enumerate(frames):
            if frame is not None:
                yield Sample(f"frame {number}", resize_image(read_image(frame.image), size))


def _read_images(
    folder: Source, size: tuple[int, int], count: int, labels: Path | None, classes: int
) -> Iterator[Sample]:
    files = list_image_files(folder)
    if len(files) > count:  # decode only those that are used
        files = [files[round(place)] for place in np.linspace(0, len(files) - 1, count)]
    for file in files:
        source = parse_source(str(file))
        frame = next(decode_image_files(source, rate=1.0, max_pixels=MAX_PIXELS))
        if frame is None:
            raise SourceError(f"{source.display}: cannot be decoded")
        image, truth = read_image(frame.image), None
        if labels is not None:
            truth = read_labels(labels / f"{file.stem}.png", classes=classes, size=image.shape[:2])
        yield Sample(file.name, resize_image(image, size), truth)


Preset = Literal["performance", "mixed"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


class QuantizeSettings(BaseModel):
    """Settings. The defaults lose least on the road network at equal speed; docs/engines.md has the figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset = "performance"  # mixed: asymmetric activations; else all symmetric
    bias_correction: bool = False  # shift each layer to keep its mean output; costs the road network 0.6 mIoU
    keep: tuple[str, ...] = ()  # names of ONNX operators that stay in float32


def nncf_version() -> str:
    """Return the version of NNCF. Raises NetworkError where it is missing."""
    try:
        return version("nncf")
    except PackageNotFoundError as error:
        raise NetworkError(f"int8 needs NNCF: {install_hint('[quantize]')}") from error


def quantize(onnx: bytes, images: Sequence[Image], settings: QuantizeSettings | None = None, *, name: str) -> bytes:
    """Return a portable ONNX with 8-bit weights and activations, calibrated on `images`. Raises NetworkError."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report to a web service
    nncf_version()
    # NNCF imports it; it warns of a missing CUDA compiler
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf
    import onnx as library

    settings = settings or QuantizeSettings()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = library.load_from_string(onnx)
    unknown = set(settings.keep) - {node.name for node in model.graph.node}
    if unknown:
        raise NetworkError(f"{name}: keep: no operator is named {', '.join(sorted(unknown))}")
    count = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1  # copies fill a fixed batch
    dataset = nncf.Dataset([image[None].repeat(count, 0) for image in images], lambda batch: {"image": batch})
    try:
        quantized = nncf.quantize(
            model,
            dataset,
            subset_size=len(images),
            preset=nncf.QuantizationPreset(settings.preset),
            ignored_scope=nncf.IgnoredScope(names=list(settings.keep)) if settings.keep else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=not settings.bias_correction
            ),
        )
    except (nncf.errors.ValidationError, nncf.errors.UnsupportedModelError, nncf.errors.InternalError) as error:
        raise NetworkError(f"{name}: NNCF cannot quantize it: {' '.join(str(error).split())}") from error
    return bytes(quantized.SerializeToString())
