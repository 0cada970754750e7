"""The frame itself: immutable; a stage yields `frame.evolve(...)` or `dataclasses.replace(frame, ...)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import ConfigError
from stream_seg.frame.pending_image import PendingImage, read_image
from stream_seg.frame.semantic import Semantic
from stream_seg.frame.signal import Signal
from stream_seg.frame.temporal import Temporal
from stream_seg.types import Classes, Image, Labels

NONE_MISSED: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Truth:
    """Ground truth of a synthetic frame, at the size of its image; `classes` are those of CamVid.

    labels: uint8 (H, W). motion: float32 (H, W, 2), (dx, dy) in pixels to add to (x, y) for the position of the pixel's
    point in the previous frame; None in the first frame and after a cut.
    """

    labels: Labels
    classes: Classes
    motion: NDArray[np.float32] | None


@dataclass(frozen=True)
class Stamp:
    """The times at which a stage received and yielded a frame, CLOCK_MONOTONIC nanoseconds."""

    stage: str
    began_ns: int
    ended_ns: int


@dataclass(frozen=True)
class Age:
    """Age of an earlier frame when an output finished it, and the quality level at which it was segmented."""

    quality_level: int
    ms: float


class LazyImage:
    """Descriptor of `Frame.image`: set to an array or a `PendingImage`, read as an array."""

    def __get__(self, frame: Any, _: type | None = None) -> Image:
        if frame is None:  # dataclasses reads the default of the field from the class: there is none
            raise AttributeError("image")
        return read_image(vars(frame)["image"])

    def __set__(self, frame: Any, image: Image | PendingImage) -> None:
        vars(frame)["image"] = image


@dataclass(frozen=True)
class Frame:
    """One image of a stream.

    `image` may be set to a `PendingImage`, which is converted when a stage reads it.

    `seq` counts the images of a stream from 0. A number that never arrives belongs to a frame that was dropped and
    counted. `missed` counts, by reason, the numbers just before this frame that the source could not deliver, so that
    seq advances by 1 + sum(missed) from frame to frame. `pts` is in units of `time_base` seconds. `ages` holds the
    ages that the outputs have reported since the last frame; the graph sets it. A frame with a `signal` is a
    placeholder drawn by its source: it is not segmented.
    """

    stream: str
    seq: int
    pts: int
    time_base: Fraction
    captured_ns: int
    image: LazyImage = LazyImage()
    semantic: Semantic | None = None
    truth: Truth | None = None
    temporal: Temporal | None = None
    ages: tuple[Age, ...] = ()
    missed: Mapping[str, int] = field(default_factory=lambda: NONE_MISSED)
    stamps: tuple[Stamp, ...] = ()
    signal: Signal | None = None

    @property
    def time_s(self) -> float:
        """Time of the frame in its stream, in seconds."""
        return float(self.pts * self.time_base)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image, without converting a pending one."""
        height, width = vars(self)["image"].shape[:2]
        return height, width

    def evolve(self, **changes: Any) -> Frame:
        """Return a copy with other values of some fields, as `dataclasses.replace` does, without converting a pending
        image."""
        return type(self)(**{name: vars(self)[name] for name in FIELDS} | changes)

    def share_image(self) -> None:
        """Make the image read-only, because several stages have it: a stage that draws on the image copies it."""
        image = vars(self)["image"]
        if isinstance(image, PendingImage):
            image.share()
        else:
            image.flags.writeable = False

    @property
    def classes(self) -> Classes:
        """Class names and colours, by label. Raises ConfigError for a frame without labels."""
        return self._require_semantic().classes

    @cached_property
    def labels(self) -> Labels:
        """Labels uint8 (H, W) at the size of the image; 255 is void. Raises ConfigError for a frame without labels."""
        return self.labels_at(self.size)

    def labels_at(self, size: tuple[int, int]) -> Labels:
        """Return labels uint8 of `size` = (height, width). Raises ConfigError for a frame without labels."""
        return self._require_semantic().labels_at(size)

    def _require_semantic(self) -> Semantic:
        if self.semantic is None:
            raise ConfigError(f"frame {self.stream}:{self.seq} has no labels; put a segment stage before this one")
        return self.semantic


FIELDS = tuple(one.name for one in fields(Frame))
