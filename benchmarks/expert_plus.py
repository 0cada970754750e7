"""The loop of expert.py with tricks of the pipeline: it shows what these are worth, and what a graph costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
from expert import OPACITY, Expert

from stream_seg.ops.blend import blend
from stream_seg.ops.resize import resize_image
from stream_seg.sources.convert import Converter
from stream_seg.stages.encoder_frames import EncoderFrames
from stream_seg.types import Image, Labels


class ExpertPlus(Expert):
    """The expert, who starts the network on the next image before an image is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self._converter = Converter("clip")
        self._opacity = np.full(256, OPACITY, np.float32)
        self._frames: EncoderFrames | None = None

    def segment(self, images: Iterable[Image]) -> Iterator[tuple[Image, Labels]]:
        """Yield each image with its labels, at half the size of the network's input."""
        for image in images:
            done = [] if self._free else [self.finish()]
            self.start(image)
            yield from done
        yield from super().segment(())

    def to_image(self, frame: av.VideoFrame) -> Image:
        """Return a decoded frame as an image, in the colours that a player shows."""
        return self._converter.convert(frame)

    def resize(self, image: Image) -> Image:
        """Return an image at the size of the network's input, halved by area first."""
        return resize_image(image, self.size)

    def make_result(self, scores: Any) -> Any:
        """Return the arg-max of the scores, uint8 (1, 1, h, w), inside the network's graph."""
        from openvino import opset13 as operators

        top = operators.topk(scores.input_value(0), 1, 1, "max", "none", index_element_type="i32")
        return operators.result(operators.convert(top.output(1), "u8"))

    def find_labels(self, result: Any) -> Labels:
        """Return labels from that output, which the next image overwrites."""
        labels: Labels = result[0].copy()
        return labels

    def draw(self, image: Image, labels: Labels) -> Image:
        """Blend the colours of the labels into the image, in one pass."""
        blend(image, labels, self.bgr, self._opacity)
        return image

    def to_frame(self, image: Image) -> av.VideoFrame:
        """Return an image as a frame to encode, without swscale and in the memory of an earlier frame."""
        self._frames = self._frames or EncoderFrames(image.shape[:2], reuse=True)
        return self._frames.convert(image)
