"""Images that are converted when a stage reads them: once, for all copies of their frame."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from threading import Semaphore
from weakref import ref

import numpy as np
import pytest

from stream_seg.errors import SourceError
from stream_seg.frame import Age, EngineInfo, Frame, PendingImage, Semantic, read_image
from stream_seg.types import Classes, Image

SHAPE = (4, 6, 3)


class Conversion:
    """A conversion that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Image:
        self.calls += 1
        return np.full(SHAPE, self.calls, np.uint8)


def make_frame(convert: Callable[[], Image]) -> Frame:
    return Frame("front", 3, 3, Fraction(1, 30), time.monotonic_ns(), PendingImage(convert, SHAPE))


def test_several_threads_get_one_image() -> None:
    asking, conversion = Semaphore(0), Conversion()

    def convert() -> Image:
        assert all(asking.acquire(timeout=20) for _ in range(8))
        return conversion()

    frame = make_frame(convert)
    copies = [frame, *(frame.evolve(seq=number) for number in range(7))]

    def read(copy: Frame) -> Image:
        asking.release()
        return copy.image

    with ThreadPoolExecutor(8) as threads:
        images = [*threads.map(read, copies)]
    assert conversion.calls == 1
    assert all(image is images[0] for image in images)


def test_a_frame_is_copied_and_measured_without_a_conversion() -> None:
    conversion = Conversion()
    frame = make_frame(conversion)
    copy = frame.evolve(seq=7, ages=(Age(0, 1.0),))
    assert (copy.seq, copy.ages, copy.stream, copy.pts) == (7, (Age(0, 1.0),), "front", 3)
    assert frame.seq == 3
    assert copy.size == SHAPE[:2]
    copy.share_image()
    assert conversion.calls == 0
    assert copy.image is frame.image
    assert conversion.calls == 1


def test_a_copy_has_no_labels_of_other_classes() -> None:
    classes, info = Classes(("road", "sky"), ((0, 0, 0), (1, 1, 1))), EngineInfo("n", "b", "p", "d")
    semantics = [Semantic(classes, info, SHAPE[:2], label_map=np.full(SHAPE[:2], label, np.uint8)) for label in (0, 1)]
    frame = make_frame(Conversion()).evolve(semantic=semantics[0])
    assert frame.labels.max() == 0
    assert frame.evolve(semantic=semantics[1]).labels.min() == 1


def test_a_copy_made_by_dataclasses_has_the_image() -> None:
    conversion = Conversion()
    frame = make_frame(conversion)
    copy = replace(frame, seq=4)
    assert copy.image is frame.image
    assert conversion.calls == 1
    other = replace(frame, image=np.zeros(SHAPE, np.uint8))
    assert other.image.max() == 0
    assert frame.image.max() == 1


@pytest.mark.parametrize("read_first", [False, True])
def test_a_shared_image_is_read_only(read_first: bool) -> None:
    frame = make_frame(Conversion())
    if read_first:
        assert frame.image.flags.writeable
    frame.evolve(seq=4).share_image()
    assert not frame.image.flags.writeable
    ready = Frame("front", 0, 0, Fraction(1, 30), 0, np.zeros(SHAPE, np.uint8))
    ready.share_image()
    assert not ready.image.flags.writeable


def test_the_decoded_frame_is_released_after_the_conversion() -> None:
    class Decoded:
        def convert(self) -> Image:
            return np.zeros(SHAPE, np.uint8)

    decoded = Decoded()
    alive, pending = ref(decoded), PendingImage(decoded.convert, SHAPE)
    del decoded
    assert alive() is not None
    read_image(pending)
    gc.collect()
    assert alive() is None


def test_an_image_that_cannot_be_converted_is_an_error_every_time() -> None:
    def fail() -> Image:
        raise SourceError("camera: cannot be converted")

    frame = make_frame(fail)
    for _ in range(2):
        with pytest.raises(SourceError, match="camera: cannot be converted"):
            _ = frame.image


def test_a_frame_needs_an_image() -> None:
    with pytest.raises(TypeError, match="image"):
        Frame("front", 0, 0, Fraction(1, 30), 0)  # type: ignore[call-arg]
