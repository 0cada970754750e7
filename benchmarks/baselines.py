"""Segmentation as a typical loop does it: two baselines for `pipeline.py`, with the same weights and images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import cv2
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference
import onnx.utils
from numpy.typing import NDArray

from stream_seg.errors import NetworkError
from stream_seg.network.network import Network
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.stages.base import Frames
from stream_seg.types import Image, Labels

Session: TypeAlias = Callable[[Any], NDArray[np.float32]]
"""Computes scores, float32 (1, C, H, W), from the network's input, float32 (1, 3, H, W)."""
PREPROCESSING = ("Cast", "Transpose", "Mul", "Add")
"""Operators from the uint8 image to the normalized input, in the shipped ONNX."""


def extract_plain_onnx(network: Network) -> bytes:
    """Return the network as a download would be, from the shipped ONNX: without its pre-processing.

    Input: normalized float32 (1, 3, H, W). Output: float32 scores (1, C, H, W), enlarged to the input's size.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(network.f32))
    value = model.graph.input[0].name
    for operator in PREPROCESSING:
        nodes = [node for node in model.graph.node if value in node.input]
        if [node.op_type for node in nodes] != [operator]:
            raise NetworkError(
                f"{network.name}: expected {' -> '.join(PREPROCESSING)} after its input, got no {operator}"
            )
        value = nodes[0].output[0]
    plain = onnx.utils.Extractor(model).extract_model([value], ["scores"])
    enlarge_scores(plain, network.size)
    return bytes(plain.SerializeToString())


def enlarge_scores(model: onnx.ModelProto, size: tuple[int, int]) -> None:
    """Append a bilinear resize to (height, width) to a model with the single output `scores` (N, C, h, w)."""
    scores = model.graph.output.pop()
    height, width = (dimension.dim_value for dimension in scores.type.tensor_type.shape.dim[2:])
    scales = np.array([1, 1, size[0] / height, size[1] / width], np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(scales, "scales"))
    model.graph.node.append(onnx.helper.make_node("Resize", ["scores", "", "scales"], ["enlarged"], mode="linear"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("enlarged", onnx.TensorProto.FLOAT, None))


def open_session(plain: bytes, *, threads: int | None) -> Session:
    """Open an ONNX in ONNX Runtime with default settings, or with a number of `threads`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = ort.InferenceSession(plain, options)
    name = session.get_inputs()[0].name
    return lambda blob: session.run(None, {name: blob})[0]


@dataclass(frozen=True)
class InputSpec:
    """The network's (width, height), BGR mean and standard deviation of levels 0 to 1, and BGR colours (256, 3)."""

    size: tuple[int, int]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    palette: NDArray[np.uint8]


def read_spec(network: Network) -> InputSpec:
    """Return the input of a shipped network from its side-car."""
    sidecar = json.loads((SHIPPED / NETWORKS[network.name]).read_text(encoding="utf-8"))
    mean, std = (np.array(sidecar[key], np.float32) for key in ("mean_bgr", "std_bgr"))
    return InputSpec(network.size[::-1], mean, std, network.classes.bgr)


@dataclass(frozen=True)
class Naive:
    """A baseline that uses numpy wherever it can."""

    spec: InputSpec
    run: Session

    def labels(self, image: Image) -> Labels:
        """Return the labels of an image, at the network's size."""
        small = cv2.resize(image, self.spec.size).astype(np.float32) / 255
        normalized = (small - self.spec.mean) / self.spec.std
        scores = self.run(normalized.transpose(2, 0, 1)[None])
        labels: Labels = np.argmax(scores[0], axis=0).astype(np.uint8)
        return labels

    def draw(self, image: Image) -> Image:
        """Return an image with the overlay."""
        labels = cv2.resize(self.labels(image), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        colour = self.spec.palette[labels]
        overlay: Image = (0.5 * image + 0.5 * colour).astype(np.uint8)
        return overlay


@dataclass(frozen=True)
class Decent:
    """A baseline that uses OpenCV wherever it can."""

    spec: InputSpec
    run: Session

    def labels(self, image: Image) -> Labels:
        """Return the labels of an image, at the network's size."""
        parameters = cv2.dnn.Image2BlobParams()
        parameters.size = self.spec.size
        parameters.mean = (255 * self.spec.mean).tolist()
        parameters.scalefactor = (1 / (255 * self.spec.std)).tolist()
        scores = self.run(cv2.dnn.blobFromImageWithParams(image, parameters))
        labels: Labels = np.argmax(scores[0], axis=0).astype(np.uint8)
        return labels

    def draw(self, image: Image) -> Image:
        """Return an image with the overlay."""
        labels = cv2.resize(self.labels(image), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        colour = cv2.applyColorMap(labels, self.spec.palette[:, None])
        overlay: Any = cv2.addWeighted(image, 0.5, colour, 0.5, 0)
        return np.asarray(overlay, np.uint8)


def make_stage(baseline: Naive | Decent) -> Callable[[Frames], Frames]:
    """Return the baseline as a stage, so that the same code decodes, encodes and measures all contenders."""

    def draw(frames: Frames) -> Frames:
        for frame in frames:
            yield replace(frame, image=baseline.draw(frame.image))

    return draw
