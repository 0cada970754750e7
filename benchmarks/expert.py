"""Segmentation of a video as an expert writes it in an afternoon, with the same int8 network: the bar for the pipeline.

    decode (a thread) -> resize -> network, two images at a time -> arg-max -> draw -> encode (a thread)

The encoder has the settings of `write`. Methods of Expert are steps that expert_plus.py replaces.
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

from stream_seg.network.network import open_network
from stream_seg.stages.encoder import add_stream
from stream_seg.stages.write import Write
from stream_seg.types import Image, Labels

REQUESTS = 2
QUEUED_FRAMES = 4
RATE = Fraction(30)
OPACITY = 0.5


class Expert:
    """The network with two images under way. `interpolation` is OpenCV's, from the image to the network's input."""

    def __init__(self, interpolation: int = cv2.INTER_LINEAR) -> None:
        network = open_network("road")
        self.size, self.bgr, self._interpolation = network.size, network.classes.bgr, interpolation
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # reports to a web service
        import openvino as ov

        core = ov.Core()
        model = core.read_model(network.int8)
        scores = next(result for result in model.get_results() if "scores" in result.output(0).get_names())
        model = ov.Model([self.make_result(scores)], model.get_parameters())
        model.reshape([1, *network.size, 3])
        options = {"NUM_STREAMS": REQUESTS, "INFERENCE_NUM_THREADS": REQUESTS, "ENABLE_CPU_PINNING": False}
        compiled = core.compile_model(model, "CPU", {**options, "INFERENCE_PRECISION_HINT": "f32"})
        self._free = deque(compiled.create_infer_request() for _ in range(REQUESTS))
        self._running: deque[tuple[Image, Image, Any]] = deque()

    def segment(self, images: Iterable[Image]) -> Iterator[tuple[Image, Labels]]:
        """Yield each image with its labels, at half the size of the network's input."""
        for image in images:
            if not self._free:
                yield self.finish()
            self.start(image)
        while self._running:
            yield self.finish()

    def start(self, image: Image) -> None:
        """Start the network on an image."""
        request, resized = self._free.popleft(), self.resize(image)
        request.start_async({0: resized[None]}, share_inputs=True)
        self._running.append((image, resized, request))

    def finish(self) -> tuple[Image, Labels]:
        """Return the image that was started first, and its labels."""
        image, _, request = self._running.popleft()
        request.wait()
        labels = self.find_labels(request.get_output_tensor(0).data[0])
        self._free.append(request)
        return image, labels

    def to_image(self, frame: av.VideoFrame) -> Image:
        """Return a decoded frame as an image."""
        return to_image(frame)

    def resize(self, image: Image) -> Image:
        """Return an image at the size of the network's input."""
        return np.asarray(cv2.resize(image, self.size[::-1], interpolation=self._interpolation), np.uint8)

    def make_result(self, scores: Any) -> Any:
        """Return the output of the network's graph, from its output `scores`."""
        return scores

    def find_labels(self, result: Any) -> Labels:
        """Return labels from that output."""
        labels: Labels = np.argmax(result, axis=0).astype(np.uint8)
        return labels

    def draw(self, image: Image, labels: Labels) -> Image:
        """Return the image with the colours of its labels."""
        colours = cv2.applyColorMap(labels, self.bgr[:, None])
        enlarged = cv2.resize(colours, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.addWeighted(image, 1 - OPACITY, enlarged, OPACITY, 0), np.uint8)

    def to_frame(self, image: Image) -> av.VideoFrame:
        """Return an image as a frame to encode."""
        return to_frame(image)


def run(clip: Path, output: Path | None, expert: Expert, *, frames: int, mark: Callable[[], None]) -> None:
    """Segment the first frames of a clip into a video, or into nothing; call `mark` for each frame that leaves."""
    inputs, outputs = Queue[Image | None](QUEUED_FRAMES), Queue[Image | None](QUEUED_FRAMES)
    images = map(expert.to_image, islice(decode(clip), frames))
    ends = _drain(outputs), output, mark, expert.to_frame
    threads = [Thread(target=_fill, args=(inputs, images), daemon=True), Thread(target=leave, args=ends, daemon=True)]
    for thread in threads:
        thread.start()
    _fill(outputs, (expert.draw(image, labels) for image, labels in expert.segment(_drain(inputs))))
    for thread in threads:
        thread.join()


def decode(clip: Path) -> Iterator[av.VideoFrame]:
    """Yield the frames of a clip."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield from container.decode(stream)


def to_image(frame: av.VideoFrame) -> Image:
    """Return a decoded frame as an image."""
    return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


def to_frame(image: Image) -> av.VideoFrame:
    """Return an image as a frame to encode."""
    return av.VideoFrame.from_ndarray(image, format="bgr24")


def leave(
    images: Iterable[Image],
    output: Path | None,
    mark: Callable[[], None],
    convert: Callable[[Image], av.VideoFrame] = to_frame,
) -> None:
    """Encode images, or drop them without an output; call `mark` for each."""
    if output is not None:
        encode(map(convert, images), output, mark)
        return
    for _ in images:
        mark()


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


def _fill(queue: Queue[Image | None], images: Iterable[Image]) -> None:
    for image in images:
        queue.put(image)
    queue.put(None)


def _drain(queue: Queue[Image | None]) -> Iterator[Image]:
    while (image := queue.get()) is not None:
        yield image
