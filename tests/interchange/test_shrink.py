"""The shipped network at half its input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from stream_seg.backends.choose import open_engine
from stream_seg.errors import NetworkError
from stream_seg.interchange.shrink import shrunk
from stream_seg.network import Network, open_network
from stream_seg.stages.segment import segmented
from stream_seg.stages.synthetic import Synthetic

HALF = (176, 240)


@pytest.fixture(scope="module")
def road() -> Network:
    return open_network("road")


@pytest.mark.parametrize(("backend", "precision"), [("openvino", "int8"), ("onnxruntime", "f32")])
def test_half_the_size_says_nearly_the_same(road: Network, backend: str, precision: str) -> None:
    (frame,) = Synthetic(frames=1, truth=True)(iter(()))
    with open_engine(shrunk(road, HALF), backend=backend, precision=precision) as small:
        seen = segmented(frame.image, small)
    assert seen.scores is not None
    assert seen.scores.shape == (len(road.classes), 88, 120)
    with open_engine(road, backend=backend, precision=precision) as full:
        want = segmented(frame.image, full).labels
    got = cv2.resize(seen.labels, want.shape[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.mean(got == want) > 0.85


def test_a_size_that_the_strides_do_not_divide_is_refused(road: Network) -> None:
    with pytest.raises(NetworkError, match="road"), open_engine(shrunk(road, (170, 230)), backend="openvino"):
        pass
