"""Segmentation as people write it in a loop: two baselines for `pipeline.py`. Same weights, same pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import cv2
import numpy as np
import onnx
import onnx.shape_inference
import onnx.utils
from numpy.typing import NDArray

from stream_seg.errors import NetworkError
from stream_seg.network.network import Network
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.stages.base import Frames
from stream_seg.types import Image, Labels

Session: TypeAlias = Callable[[Any], NDArray[np.float32]]
"""From the network's input, float32 (1, 3, H, W), to scores float32 (1, C, H, W)."""
BEFORE = ("Cast", "Transpose", "Mul", "Add")
"""From the uint8 picture to what the network proper takes, in the shipped ONNX."""


def plain_onnx(network: Network) -> bytes:
    """The network without its per-pixel work, as it would be downloaded: normalised float32 (1, 3, H, W) in, float32
    scores (1, C, H, W) out, enlarged to the input's size. Cut out of the shipped ONNX: the same weights."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(network.f32))
    value = model.graph.input[0].name
    for operator in BEFORE:
        nodes = [node for node in model.graph.node if value in node.input]
        if [node.op_type for node in nodes] != [operator]:
            raise NetworkError(f"{network.name}: expected {' -> '.join(BEFORE)} behind its input, found no {operator}")
        value = nodes[0].output[0]
    scores = next(node.input[0] for node in model.graph.node if node.op_type == "ArgMax")
    return bytes(onnx.utils.Extractor(model).extract_model([value], [scores]).SerializeToString())


def session(plain: bytes, *, threads: int | None) -> Session:
    """ONNX Runtime as everybody opens it, all defaults; with `threads`, on so many."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    opened = ort.InferenceSession(plain, options)
    name = opened.get_inputs()[0].name
    return lambda blob: opened.run(None, {name: blob})[0]


@dataclass(frozen=True)
class Look:
    """What a baseline knows of the network: (width, height), BGR mean and deviation of 0 to 1, BGR colours (256, 3)."""

    size: tuple[int, int]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    palette: NDArray[np.uint8]


def look(network: Network) -> Look:
    """Of a shipped network, from its side-car."""
    said = json.loads((SHIPPED / NETWORKS[network.name]).read_text(encoding="utf-8"))
    mean, std = (np.array(said[key], np.float32) for key in ("mean_bgr", "std_bgr"))
    return Look(network.size[::-1], mean, std, network.classes.bgr)


@dataclass(frozen=True)
class Naive:
    """numpy wherever numpy can do it."""

    look: Look
    run: Session

    def labels(self, image: Image) -> Labels:
        """Of one picture, at the network's size."""
        small = cv2.resize(image, self.look.size).astype(np.float32) / 255
        normalised = (small - self.look.mean) / self.look.std
        scores = self.run(normalised.transpose(2, 0, 1)[None])
        labels: Labels = np.argmax(scores[0], axis=0).astype(np.uint8)
        return labels

    def draw(self, image: Image) -> Image:
        """The overlay of one picture."""
        labels = cv2.resize(self.labels(image), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        colour = self.look.palette[labels]
        drawn: Image = (0.5 * image + 0.5 * colour).astype(np.uint8)
        return drawn


@dataclass(frozen=True)
class Decent:
    """OpenCV wherever OpenCV can do it."""

    look: Look
    run: Session

    def labels(self, image: Image) -> Labels:
        """Of one picture, at the network's size."""
        parameters = cv2.dnn.Image2BlobParams()
        parameters.size = self.look.size
        parameters.mean = (255 * self.look.mean).tolist()
        parameters.scalefactor = (1 / (255 * self.look.std)).tolist()
        scores = self.run(cv2.dnn.blobFromImageWithParams(image, parameters))
        labels: Labels = np.argmax(scores[0], axis=0).astype(np.uint8)
        return labels

    def draw(self, image: Image) -> Image:
        """The overlay of one picture."""
        labels = cv2.resize(self.labels(image), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        colour = cv2.applyColorMap(labels, self.look.palette[:, None])
        drawn: Any = cv2.addWeighted(image, 0.5, colour, 0.5, 0)
        return np.asarray(drawn, np.uint8)


def stage(baseline: Naive | Decent) -> Callable[[Frames], Frames]:
    """The baseline as a stage, so that the same code decodes, encodes and measures for all."""

    def drawn(frames: Frames) -> Frames:
        for frame in frames:
            yield replace(frame, image=baseline.draw(frame.image))

    return drawn
