"""A frame: one picture and everything that is known of it. Frozen; a stage yields `dataclasses.replace(frame, ...)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import Reason
from stream_seg.types import Classes, Image, Labels, Scores

if TYPE_CHECKING:
    from stream_seg.ops.motion import Motion

NOTHING: Mapping[str, int] = MappingProxyType({})

State: TypeAlias = Literal["starting", "up", "stalled", "down"]
STATES: tuple[State, ...] = ("starting", "up", "stalled", "down")


@dataclass(frozen=True, eq=False)
class Base:
    """Scores (C, h, w) that later frames are carried from, and where these are of one mind."""

    scores: Scores

    @cached_property
    def known(self) -> Labels:
        """What is `settled` of them, uint8 (h, w)."""
        from stream_seg.ops.propagate import settled  # brings numba: not for a help text

        return settled(self.scores)


@dataclass(frozen=True, eq=False)
class Carried:
    """A base, and the motion since its picture, of any resolution. Scores and labels are those at the present."""

    base: Base
    motion: Motion

    @cached_property
    def scores(self) -> Scores:
        """float32 (C, h, w)."""
        from stream_seg.ops.propagate import moved

        return moved(self.base.scores, self._motion())

    def labels(self, size: tuple[int, int]) -> Labels:
        """uint8 (height, width) of `size`: as of the scores here, enlarged, at two thirds of the price."""
        from stream_seg.ops.labels import upsampled_argmax
        from stream_seg.ops.propagate import moved_labels

        if min(self.base.scores.shape[1:]) < 2:
            return upsampled_argmax(self.scores, size)
        return moved_labels(self.base.scores, self.base.known, self._motion(), size=size)

    def _motion(self) -> Motion:
        from stream_seg.ops.motion import resized

        height, width = self.base.scores.shape[1:]
        return resized(self.motion, (height, width))


class LazyScores:
    """The field `Semantic.scores`: given as an array, as `Carried` or as None; read as an array or None."""

    def __get__(self, semantic: Any, _: type | None = None) -> NDArray[np.float32] | None:
        if semantic is None:  # what the field is where nothing is given
            return None
        given = given_scores(semantic)
        return given.scores if isinstance(given, Carried) else given

    def __set__(self, semantic: Any, scores: NDArray[np.float32] | Carried | None) -> None:
        vars(semantic)["scores"] = scores


def given_scores(semantic: Any) -> Scores | Carried | None:
    """The scores of a Semantic as they were given, not yet moved."""
    given: Scores | Carried | None = vars(semantic)["scores"]
    return given


@dataclass(frozen=True)
class EngineInfo:
    """What computed a result: shown in reports, metrics and the HUD."""

    network: str
    backend: str
    precision: str
    device: str


@dataclass(frozen=True)
class Semantic:
    """The class of every pixel, as the network said it. Everything here covers the whole picture, whatever its size.

    Either `scores`, at the network's own low resolution, or (from a network that says no scores) `verdict`, at `size`.
    `labels` is the verdict at `size` = (height, width), the network's input size; computed when first asked for, since
    a stage that changes the scores would throw an earlier verdict away. So are the scores of a frame to which those of
    an earlier one are carried (`carried.Carried`).
    """

    classes: Classes
    engine: EngineInfo
    size: tuple[int, int]
    scores: LazyScores = LazyScores()  # a descriptor: what the field is stands in each Semantic
    verdict: Labels | None = None

    @cached_property
    def labels(self) -> Labels:
        """uint8 (height, width) of `size`."""
        return self.labels_at(self.size)

    def labels_at(self, size: tuple[int, int]) -> Labels:
        """uint8 (height, width) of any other `size`: enlarged as scores, not as labels, where there are scores."""
        from stream_seg.ops.labels import resized_labels, upsampled_argmax  # brings numba: not for a help text

        if self.verdict is not None:
            return resized_labels(self.verdict, size)
        given = given_scores(self)
        if given is None:
            raise ValueError("a Semantic needs scores or a verdict")
        return given.labels(size) if isinstance(given, Carried) else upsampled_argmax(given, size)


@dataclass(frozen=True)
class Truth:
    """What a drawn scene knows of itself, at the picture's size: exact labels uint8 (H, W), exact motion float32
    (H, W, 2): where a pixel's point stood in the last frame given, as (dx, dy) in pixels to add to (x, y). `classes`
    are CamVid's. Motion is None in the first frame and after a cut."""

    labels: Labels
    classes: Classes
    motion: NDArray[np.float32] | None


@dataclass(frozen=True)
class Step:
    """The motion from a frame of the stream, number `since`, to this one, and how far it is believed, at a size of
    their own: backward, as `ops.motion` says."""

    since: int
    motion: NDArray[np.float32]
    believed: NDArray[np.float32]
    luma: NDArray[np.uint8] | None = None
    """Of this frame, where it is known."""


@dataclass(frozen=True)
class Temporal:
    """What the classes of a frame owe to the frames before it."""

    reset: str | None = None
    """Why `smooth` forgot the past at this frame, one of `stages.smooth.RESETS`; None where it did not."""
    confidence: float | None = None
    """Mean confidence, 0-1, of the motion by which the past was carried here; None where nothing was."""
    key: bool = True
    """Whether the network looked at this picture."""
    age: int = 0
    """Frames since the picture that the classes come from; 0: from this one."""
    rung: int = 0
    """How far `segment` has stepped down to hold `target_ms`; 0: not at all."""
    change: str | None = None
    """Why the rung changed at this frame, of `ladder.Change`; None where it did not."""
    step: Step | None = None
    """The motion since the frame before, where `segment` had to find it."""


@dataclass(frozen=True)
class Stamp:
    """When a stage took a frame and when it gave it on, CLOCK_MONOTONIC nanoseconds."""

    stage: str
    began_ns: int
    ended_ns: int


@dataclass(frozen=True)
class Age:
    """How old an earlier frame, made on a `rung` of `segment`, was when an output had dealt with it."""

    rung: int
    ms: float


@dataclass(frozen=True)
class Signal:
    """Why a live source has no picture to give: it has never been up (`starting`), fell silent or shows the same
    picture (`stalled`), or is away (`down`). `reason` is None while it is opened for the first time; `since_ns` is the
    CLOCK_MONOTONIC of its last good picture, or of its start; `attempts` counts those to open it since then."""

    state: State
    reason: Reason | None
    since_ns: int
    attempts: int = 0


@dataclass(frozen=True)
class Frame:
    """`seq` counts a stream's pictures from 0 without a break: one that never arrives was dropped somewhere, and
    counted. `missed` counts, by reason, the numbers just before this frame that the source itself could not deliver
    (so seq has advanced by 1 + sum(missed) since the last frame). `pts` is in units of `time_base` seconds.
    `ages` is what the outputs have told a `segment` stage since its last frame; the graph writes it. A frame with a
    `signal` is a card that the source drew in the place of a picture: nothing in it is to be segmented."""

    stream: str
    seq: int
    pts: int
    time_base: Fraction
    captured_ns: int
    image: Image
    semantic: Semantic | None = None
    truth: Truth | None = None
    temporal: Temporal | None = None
    ages: tuple[Age, ...] = ()
    missed: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    stamps: tuple[Stamp, ...] = ()
    signal: Signal | None = None
