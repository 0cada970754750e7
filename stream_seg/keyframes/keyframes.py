"""Key frames: what is known of a stream since the network last looked at it, and when it has to look again.

                    flow             flow             flow
frame  0 -------------> 1 -------------> 2 -------------> 3
       |                |                |                |
    network        0's scores       0's scores         network
       |          moved by 0->1   moved by 0->1->2        |
     scores          scores           scores            scores
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.frame import Frame, FrameMotion, ReferenceScores, Semantic, Temporal, WarpedScores
from stream_seg.ops import motion as ops
from stream_seg.ops.motion import Luma, Motion
from stream_seg.per_stream import PerStream
from stream_seg.sources.timeline import discontinuity
from stream_seg.types import Image

Every: TypeAlias = int | Literal["auto"]
Look: TypeAlias = Callable[[Image], Callable[[], Semantic]]
"""Takes what it needs of a picture at once, and gives what the network says of it when that is called."""

DOUBT = 0.9
"""`auto`: the sum over the frames since the key frame of the share of what it said that is no longer trusted, at which
the next is due. Not the share itself: if the loss grows evenly by s per frame, intervals of sqrt(2 DOUBT / s) frames
lose least, and on CamVid val the sum costs 0.1 to 0.4 mIoU less than the share at the same number of key frames. 0.9
means every third frame there."""
LONGEST = 15
"""`auto`: frames after which a key frame is due even if nothing moved: new things may be too small to be noticed."""


@dataclass(frozen=True)
class View:
    """A picture as far as motion is concerned."""

    seq: int
    time_s: Fraction
    size: tuple[int, ...]
    luma: Luma

    @classmethod
    def at(cls, frame: Frame) -> View:
        """What is kept of a frame."""
        return cls(frame.seq, frame.pts * frame.time_base, frame.image.shape, ops.compute_luma(frame.image))

    def step(self, now: View) -> FrameMotion | None:
        """The motion from here to `now`; None after a gap, at a cut, when time goes back or the size changes."""
        if self.size != now.size or discontinuity(now.time_s - self.time_s) is not None:
            return None
        motion = ops.estimate_flow(self.luma, now.luma)
        confidence = ops.estimate_confidence(self.luma, now.luma, motion)
        return None if ops.is_cut(confidence) else FrameMotion(self.seq, motion, confidence, now.luma)


@dataclass(frozen=True)
class Since:
    """The way from a key frame to the present: frames passed, the motion over all of them (None: none yet), how far
    each pixel is still trusted, 0-1 (the network's margin there times the confidence of every step), and the doubt
    that has piled up. Without `auto` nobody asks for the last two, and trust is None."""

    age: int = 0
    motion: Motion | None = None
    trust: NDArray[np.float32] | None = None
    doubt: float = 0.0

    @classmethod
    def key(cls, every: Every) -> Since:
        """At the key frame itself."""
        return cls(trust=np.ones(ops.SIZE, np.float32) if every == "auto" else None)

    def told(self, said: Semantic) -> Since:
        """The same way, now that it is known what the network says of the key frame."""
        if said.scores is None or self.trust is None:
            return self
        from stream_seg.ops.propagate import compute_margins  # brings numba: not for a help text

        sure = cv2.resize(compute_margins(said.scores), ops.SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        seen = sure if self.motion is None else ops.warp(np.asarray(sure, np.float32), self.motion)
        return replace(self, trust=np.asarray(cv2.multiply(self.trust, seen), np.float32))

    def after(self, step: FrameMotion) -> Since:
        """One frame on."""
        from stream_seg.ops.propagate import compose_motion  # brings numba: not for a help text

        motion = step.flow if self.motion is None else compose_motion(self.motion, step.flow)
        if self.trust is None:
            return Since(self.age + 1, motion)
        trust = np.asarray(cv2.multiply(ops.warp(self.trust, step.flow), step.confidence), np.float32)
        return Since(self.age + 1, motion, trust, self.doubt + 1.0 - float(cv2.mean(trust)[0]))

    def due(self, every: Every, *, doubt: float = DOUBT) -> bool:
        """Whether the present has to be a key frame; `auto` at so much doubt."""
        if every == "auto":
            return self.age >= LONGEST or self.doubt >= doubt or self.trust is None
        return self.age >= every


def based(said: Semantic) -> ReferenceScores | None:
    """What can be carried of it as scores."""
    return None if said.scores is None else ReferenceScores(said.scores)


def carried(said: Semantic, base: ReferenceScores | None, since: Since) -> Semantic:
    """What a key frame said, at the present; `base` is its scores, if it has any."""
    if since.motion is None:
        return said
    if base is not None:
        return replace(said, scores=WarpedScores(base, since.motion))
    assert said.label_map is not None
    motion = ops.resize_motion(since.motion, said.label_map.shape)
    return replace(said, label_map=ops.warp(said.label_map, motion, nearest=True))


@dataclass
class _Track:
    """What is held of one stream: the last frame, the last key frame that the network has answered, the one asked."""

    view: View
    said: Semantic
    base: ReferenceScores | None
    since: Since
    asked: Future[Semantic] | None = None
    since_asked: Since | None = None

    def move(self, view: View, step: FrameMotion) -> None:
        """One frame on; an answer that has come takes its place."""
        self.view, self.since = view, self.since.after(step)
        if self.asked is not None and self.since_asked is not None:
            self.since_asked = self.since_asked.after(step)
            if self.asked.done():
                self.said = self.asked.result()
                self.base = based(self.said)
                self.since = self.since_asked.told(self.said)
                self.asked = self.since_asked = None


class Keys:
    """The key frames of all streams of a stage.

    Without a worker a key frame waits for the network, and the same frames give the same classes. With one it is asked
    aside: the frames go on with the key frame before until the answer has come. Only where there is nothing to carry
    on (the beginning, a cut, a gap) a frame waits.
    """

    def __init__(self, worker: Executor | None, *, doubt: float = DOUBT) -> None:
        self._worker, self._doubt = worker, doubt
        self._tracks: PerStream[_Track] = PerStream()

    def frame(self, frame: Frame, look: Look, *, every: Every) -> tuple[Frame, Temporal]:
        """A frame with its classes, and what they owe to the frames before. Raises what `look` raises."""
        track, view, step = self._tracks.get(frame.stream), View.at(frame), None
        waits = self._worker is None or every == 1
        foreseen = waits and track is not None and every != "auto" and track.since.age + 1 >= every
        if track is not None and not foreseen:
            step = track.view.step(view)
        if track is not None and step is not None:
            track.move(view, step)
            due = track.since.due(every, doubt=self._doubt)
            if not (due and waits):
                self._tracks.put(frame.stream, track)
                asks = due and self._ask(track, look(frame.image), every=every)
                temporal = Temporal(key=asks, age=track.since.age, motion=step)
                return replace(frame, semantic=carried(track.said, track.base, track.since)), temporal
        if track is not None and track.asked is not None:
            track.asked.cancel()
        said = look(frame.image)()
        self._tracks.put(frame.stream, _Track(view, said, based(said), Since.key(every).told(said)))
        return replace(frame, semantic=said), Temporal(motion=step)

    def _ask(self, track: _Track, looking: Callable[[], Semantic], *, every: Every) -> bool:
        """Whether the network was asked; it is asked for one frame of a stream at a time."""
        assert self._worker is not None
        if track.asked is not None:
            return False
        track.asked, track.since_asked = self._worker.submit(looking), Since.key(every)
        return True
