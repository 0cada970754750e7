"""Segmentation of a video as an expert writes it in an afternoon, with the same int8 network: the bar for the pipeline.

    decode (a thread) -> resize -> network, two images at a time -> arg-max -> draw -> encode (a thread)

The encoder has the settings of `write`. `tricks` are the pipeline's own in the same loop: arg-max in the network's
graph, the resize by halving, the blend in one pass, and the conversions of decoded and encoded frames.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import av
import cv2
import numpy as np

from stream_seg.network.network import Network, open_network
from stream_seg.ops.resize import resize_image
from stream_seg.sources.convert import Converter
from stream_seg.stages.encoder import add_stream
from stream_seg.stages.encoder_frames import EncoderFrames
from stream_seg.stages.write import Write
from stream_seg.types import Image, Labels

REQUESTS = 2
QUEUED_FRAMES = 4
RATE = Fraction(30)
OPACITY = 0.5


class Expert:
    """The network with two images under way. `interpolation` is OpenCV's, from the image to the network's input."""

    def __init__(self, *, interpolation: int = cv2.INTER_LINEAR, tricks: bool = False) -> None:
        network = open_network("road")
        self._size, self._bgr = network.size, network.classes.bgr
        self._interpolation, self.tricks = interpolation, tricks
        compiled = _compile(network, argmax=tricks)
        self._free = deque(compiled.create_infer_request() for _ in range(REQUESTS))
        self._running: deque[tuple[Image, Image, Any]] = deque()
        if tricks:
            from stream_seg.ops.blend import blend  # imports numba

            self._blend, self._opacity = blend, np.full(256, OPACITY, np.float32)

    def segment(self, images: Iterable[Image]) -> Iterator[tuple[Image, Labels]]:
        """Yield each image with its labels, at half the size of the network's input."""
        for image in images:
            if not self._free:
                yield self._finish()
            request, resized = self._free.popleft(), self._resize(image)
            request.start_async({0: resized[None]}, share_inputs=True)
            self._running.append((image, resized, request))
        while self._running:
            yield self._finish()

    def draw(self, image: Image, labels: Labels) -> Image:
        """Return the image with the colours of its labels."""
        if self.tricks:
            self._blend(image, labels, self._bgr, self._opacity)
            return image
        colours = cv2.applyColorMap(labels, self._bgr[:, None])
        enlarged = cv2.resize(colours, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.addWeighted(image, 1 - OPACITY, enlarged, OPACITY, 0), np.uint8)

    def _resize(self, image: Image) -> Image:
        if self.tricks:
            return resize_image(image, self._size)
        return np.asarray(cv2.resize(image, self._size[::-1], interpolation=self._interpolation), np.uint8)

    def _finish(self) -> tuple[Image, Labels]:
        image, _, request = self._running.popleft()
        request.wait()
        result = request.get_output_tensor(0).data[0]
        labels: Labels = result[0].copy() if self.tricks else np.argmax(result, axis=0).astype(np.uint8)
        self._free.append(request)
        return image, labels


def run(clip: Path, output: Path | None, expert: Expert, *, frames: int, mark: Callable[[], None]) -> None:
    """Segment the first frames of a clip into a video, or into nothing; call `mark` for each frame that leaves."""
    inputs, outputs = Queue[Image | None](QUEUED_FRAMES), Queue[Image | None](QUEUED_FRAMES)
    images = islice(decode(clip, tricks=expert.tricks), frames)
    threads = [
        Thread(target=_fill, args=(inputs, images), daemon=True),
        Thread(target=finish, args=(_drain(outputs), output, mark), kwargs={"tricks": expert.tricks}, daemon=True),
    ]
    for thread in threads:
        thread.start()
    _fill(outputs, (expert.draw(image, labels) for image, labels in expert.segment(_drain(inputs))))
    for thread in threads:
        thread.join()


def decode(clip: Path, *, tricks: bool = False) -> Iterator[Image]:
    """Yield the images of a clip."""
    converter = Converter(clip.name)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            yield converter.convert(frame) if tricks else to_image(frame)


def to_image(frame: av.VideoFrame) -> Image:
    """Return a decoded frame as an image."""
    return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


def to_frames(images: Iterable[Image], *, tricks: bool = False) -> Iterator[av.VideoFrame]:
    """Yield images as frames to encode; with `tricks` their memory is used again."""
    converter = None
    for image in images:
        if tricks:
            converter = converter or EncoderFrames(image.shape[:2], reuse=True)
            yield converter.convert(image)
        else:
            yield av.VideoFrame.from_ndarray(image, format="bgr24")


def encode(frames: Iterable[av.VideoFrame], output: Path, mark: Callable[[], None]) -> None:
    """Encode frames with the settings of `write`; call `mark` after each."""
    with av.open(str(output), "w") as container:
        stream = None
        for number, frame in enumerate(frames):
            if stream is None:
                size = frame.height, frame.width
                stream = add_stream(container, Write(output).encoding, size=size, rate=RATE, tick=1 / RATE)
            frame.pts, frame.time_base = number, 1 / RATE
            container.mux(stream.encode(frame))
            mark()
        if stream is not None:
            container.mux(stream.encode(None))


def finish(images: Iterable[Image], output: Path | None, mark: Callable[[], None], *, tricks: bool = False) -> None:
    """Encode images, or drop them without an output; call `mark` for each."""
    if output is not None:
        encode(to_frames(images, tricks=tricks), output, mark)
        return
    for _ in images:
        mark()


def _compile(network: Network, *, argmax: bool) -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report to a web service
    import openvino as ov
    from openvino import opset13 as operators

    core = ov.Core()
    model = core.read_model(network.int8)
    result = next(result for result in model.get_results() if "scores" in result.output(0).get_names())
    if argmax:
        top = operators.topk(result.input_value(0), 1, 1, "max", "none", index_element_type="i32")
        result = operators.result(operators.convert(top.output(1), "u8"))
    model = ov.Model([result], model.get_parameters())
    model.reshape([1, *network.size, 3])
    options = {"NUM_STREAMS": REQUESTS, "INFERENCE_NUM_THREADS": REQUESTS, "ENABLE_CPU_PINNING": False}
    return core.compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})


def _fill(queue: Queue[Image | None], images: Iterable[Image]) -> None:
    for image in images:
        queue.put(image)
    queue.put(None)


def _drain(queue: Queue[Image | None]) -> Iterator[Image]:
    while (image := queue.get()) is not None:
        yield image
