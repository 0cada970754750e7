"""Outputs that are label maps: any number type, order of axes and size that covers the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from stream_seg.engines.open import open_engine
from stream_seg.errors import NetworkError
from stream_seg.network.network import open_network
from stream_seg.stages.segment import Segment, segment_image
from tests.network.test_wrap import error_of
from tests.support import small_networks
from tests.support.frames import make_frame
from tests.support.small_networks import CLASSES, SIZE, X, extend

BACKENDS = ("openvino", "onnxruntime", "torch")
KINDS = ("FLOAT", "FLOAT16", "DOUBLE", "UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32", "INT64")
SHAPES: dict[str, tuple[bool, list[tuple[Any, ...]]]] = {
    "(N, 1, H, W)": (True, []),
    "(N, H, W)": (False, []),
    "(N, H, W, 1)": (False, [("Unsqueeze", [3])]),
    "(H, W)": (False, [("Squeeze", [0])]),
    "(H, W, 1)": (True, [("Transpose", {"perm": [0, 2, 3, 1]}), ("Squeeze", [0])]),
}
"""True if the arg-max keeps its axis, and the operators behind it."""
SIDECAR = {"classes": CLASSES, "mean": [0.5] * 3}


def make_model(kind: str = "INT64", shape: str = "(N, 1, H, W)", *, channels: int = 3) -> ModelProto:
    """Return a network of label maps of half the size of the image: the arg-max of its scores."""
    keeps_axis, steps = SHAPES[shape]
    element = TensorProto.DataType.Value(kind)
    model = small_networks.make_model(outputs={"scores": channels}, batch=1)
    arg_max = ("ArgMax", {"axis": 1, "keepdims": int(keeps_axis)})
    return extend(model, arg_max, ("Cast", {"to": element}), *steps, ("Identity",), kind=element)


def make_constant_model(values: NDArray[Any]) -> ModelProto:
    """Return a network whose output has the type of `values`, and in every image these."""
    rows = np.resize(values, (1, *SIZE))
    wide = rows.astype(np.float32 if rows.dtype == np.float32 else np.int64)
    kinds = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in (wide, rows)]
    zero = [("ReduceMax", {"keepdims": 0}), ("Mul", 0.0), ("Cast", {"to": kinds[0]})]
    model = small_networks.make_model(outputs={"scores": 3})
    return extend(model, *zero, ("Add", wide), ("Cast", {"to": kinds[1]}), kind=kinds[1])


def segment(path: Path, backend: str, image: Any) -> NDArray[np.uint8]:
    with open_engine(open_network(path), backend=backend, precision="f32") as engine:
        semantic = segment_image(image, engine)
    assert semantic.scores is None
    assert semantic.labels.shape == SIZE
    return semantic.labels


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_type_and_shape_is_taken(kind: str, shape: str, backend: str, tmp_path: Path) -> None:
    image = small_networks.make_image()
    expected = small_networks.expected_scores(image, 3, mean=0.5).argmax(0)
    assert np.bincount(expected.ravel(), minlength=3).min() > 5
    path = small_networks.write_network(tmp_path, make_model(kind, shape), SIDECAR)
    np.testing.assert_array_equal(segment(path, backend, image), expected.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_truth_values_are_two_classes(backend: str, tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"scores": 1}, batch=1)
    model = extend(model, ("Sub", 0.5), ("Greater", 0.0), kind=TensorProto.BOOL)
    image = small_networks.make_image()
    expected = small_networks.expected_scores(image, 1)[0] > 0.5
    assert 0.1 < expected.mean() < 0.9
    path = small_networks.write_network(tmp_path, model, {"classes": ["no", "yes"]})
    np.testing.assert_array_equal(segment(path, backend, image)[::2, ::2], expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (
            np.array([0, 1, 2, np.nan, -1, 255, 256, 1e9, np.inf, -np.inf, -0.4, 1.6, 2.4], np.float32),
            [0, 1, 2, 255, 255, 255, 255, 255, 255, 255, 0, 2, 2],
        ),
        (np.array([0, 1, 2, 255, 256, 65535], np.uint16), [0, 1, 2, 255, 255, 255]),
        (np.array([0, 1, 2, -1, -100, 255, 256, 2**40], np.int64), [0, 1, 2, 255, 255, 255, 255, 255]),
    ],
    ids=["float32", "uint16", "int64"],
)  # fmt: skip
def test_values_that_are_no_label_are_void(values: Any, labels: Any, backend: str, tmp_path: Path) -> None:
    path = small_networks.write_network(tmp_path, make_constant_model(values), {"classes": CLASSES})
    result = segment(path, backend, small_networks.make_image())
    np.testing.assert_array_equal(result, np.resize(labels, SIZE))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(4, 6), (5, 8), (32, 48)])
def test_labels_of_another_size_are_resized_to_the_nearest(size: Any, backend: str, tmp_path: Path) -> None:
    resize = ("Resize", "", "", [1, 3, *size], {"mode": "linear", "coordinate_transformation_mode": "half_pixel"})
    model = small_networks.make_model(outputs={"scores": 3}, batch=1)
    model = extend(model, resize, ("ArgMax", {"axis": 1}), kind=TensorProto.INT64)
    path, image = small_networks.write_network(tmp_path, model, {"classes": CLASSES}), small_networks.make_image()
    labels = small_networks.run_alone(model, image)[0, 0]
    centres = [((np.arange(o) + 0.5) * i / o).astype(int) for o, i in zip(SIZE, size, strict=True)]
    np.testing.assert_array_equal(segment(path, backend, image), labels[np.ix_(*centres)])


def test_key_frames_carry_smaller_label_maps(tmp_path: Path) -> None:
    path = small_networks.write_network(tmp_path, make_model("FLOAT"), {"classes": CLASSES})
    frames = [make_frame(seq, size=(64, 96)) for seq in range(5)]
    out = list(Segment(network=str(path), every=2)(iter(frames)))
    assert [frame.labels.shape for frame in out] == [(64, 96)] * 5


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_an_arg_max_over_another_axis_is_refused(axis: int, tmp_path: Path) -> None:
    model = extend(small_networks.make_model(outputs={"scores": 3}, batch=1), ("ArgMax", {"axis": axis}), kind=7)
    path = small_networks.write_network(tmp_path, model, {"classes": CLASSES})
    with pytest.raises(NetworkError, match=r"mine.*(labels of shape.*expected|is an arg-max over another axis)"):
        open_engine(open_network(path), backend="onnxruntime")


def test_interpolated_labels_are_refused(tmp_path: Path) -> None:
    resize = ("Resize", "", "", [1, 1, *SIZE])
    steps = [("ArgMax", {"axis": 1}), ("Cast", {"to": TensorProto.FLOAT}), (*resize, {"mode": "linear"})]
    for more, kind in (([], TensorProto.FLOAT), ([("Cast", {"to": TensorProto.INT64})], TensorProto.INT64)):
        model = extend(small_networks.make_model(outputs={"scores": 3}, batch=1), *steps, *more, kind=kind)
        message = error_of(tmp_path, model)
        assert "mine.yaml: its labels are interpolated by Resize Resize 2; resize scores, or labels in mode" in message
    steps[-1] = (*resize, {"mode": "nearest"})
    model = extend(small_networks.make_model(outputs={"scores": 3}, batch=1), *steps)
    assert open_network(small_networks.write_network(tmp_path, model, {"classes": CLASSES}))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["FLOAT", "UINT8", "INT32"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_scores_may_be_integers_or_lack_the_batch(kind: str, layout: str, backend: str, tmp_path: Path) -> None:
    """Quantized networks give their scores as integers; other exporters drop the axis of a single image."""
    element = TensorProto.DataType.Value(kind)
    model = small_networks.make_model(outputs={"scores": 3}, batch=1, nhwc=layout == "nhwc")
    steps = [("Mul", 40.0), ("Add", 100.0), ("Clip", np.float32(0), np.float32(255)), ("Cast", {"to": element})]
    model = extend(model, *steps, ("Squeeze", [0]), kind=element)
    sidecar = {"classes": CLASSES, "layout": layout}
    path, image = small_networks.write_network(tmp_path, model, sidecar), small_networks.make_image()
    scores = (small_networks.expected_scores(image, 3) * 40 + 100).clip(0, 255)
    with open_engine(open_network(path), backend=backend, precision="f32") as engine:
        result = engine.infer(image[None]).scores
    assert result is not None
    np.testing.assert_allclose(result[0], scores if kind == "FLOAT" else np.floor(scores), atol=1.01)
    assert np.mean(result[0].argmax(0) == scores.argmax(0)) > 0.95


def test_two_channels_named_three_are_an_error(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"scores": 2}, batch=1)
    assert "3 classes for the 2 channels of output scores; one name each" in error_of(tmp_path, model)
    model = extend(small_networks.make_model(outputs={"scores": 1}, batch=1), ("Add", X, X))
    message = error_of(tmp_path, model, classes=["one"])
    assert "1 class for the 1 channels of output y; two names, below and above the threshold" in message
