"""The shipped network at half its input size, and at a larger one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from stream_seg.engines.open import open_engine
from stream_seg.errors import NetworkError
from stream_seg.network.network import Network, open_network, resize_network
from stream_seg.stages.segment import Segment, segment_image
from stream_seg.stages.synthetic import Synthetic

HALF = (176, 240)


@pytest.fixture(scope="module")
def road() -> Network:
    return open_network("road")


@pytest.mark.parametrize(("backend", "precision"), [("openvino", "int8"), ("onnxruntime", "f32")])
def test_half_the_size_has_nearly_the_same_labels(road: Network, backend: str, precision: str) -> None:
    (frame,) = Synthetic(frames=1, truth=True)(iter(()))
    with open_engine(resize_network(road, HALF), backend=backend, precision=precision) as small:
        half = segment_image(frame.image, small)
    assert half.scores is not None
    assert half.scores.shape == (len(road.classes), 88, 120)
    with open_engine(road, backend=backend, precision=precision) as full:
        expected = segment_image(frame.image, full).labels
    labels = cv2.resize(half.labels, expected.shape[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.mean(labels == expected) > 0.85


def test_a_larger_size() -> None:
    (own,), (larger,) = (list(Segment(**keys)(Synthetic(frames=1)(iter(())))) for keys in ({}, {"size": (416, 576)}))
    assert own.semantic is not None
    assert larger.semantic is not None
    assert larger.semantic.scores is not None
    assert larger.semantic.scores.shape[1:] == (208, 288)
    assert larger.semantic.labels.shape == (416, 576)
    same = cv2.resize(larger.semantic.labels, own.semantic.labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.mean(same == own.semantic.labels) > 0.85


def test_the_error_for_a_size_names_one_that_fits() -> None:
    with pytest.raises(NetworkError, match=r"road: takes images of 384x640 .*170x230.*; 176x224 does$"):
        next(Segment(size=(170, 230))(Synthetic(frames=1)(iter(()))))


def test_a_size_that_the_strides_do_not_divide_is_refused(road: Network) -> None:
    with pytest.raises(NetworkError, match="road"), open_engine(resize_network(road, (170, 230)), backend="openvino"):
        pass
