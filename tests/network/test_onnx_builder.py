"""Networks that take a class more readily than by themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import Network, open_network, preferring
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.stages.segment import Segment, segmented
from stream_seg.stages.synthetic import Synthetic
from tests.support import small_networks as tiny
from tests.support.frames import frame

POLE = {"pole": 2.0}


def said_by(network: Network, image: np.ndarray, *, backend: str, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels."""
    with open_engine(network, backend=backend, precision=precision) as engine:
        semantic = segmented(image, engine)
        assert semantic.scores is not None
        return np.array(semantic.scores, np.float32), np.array(semantic.labels)


@pytest.mark.parametrize(("backend", "precision"), [("openvino", "int8"), ("onnxruntime", "f32")])
def test_scores_are_larger_by_what_is_said_and_labels_follow(backend: str, precision: str) -> None:
    (drawn,) = Synthetic(frames=1)(iter(()))
    plain, more = (
        said_by(preferring(open_network("road"), prefer, where=""), drawn.image, backend=backend, precision=precision)
        for prefer in ({}, {"pole": 2.0, "sky": -0.5})
    )
    added = np.zeros((11, 1, 1), np.float32)
    added[[2, 0], 0, 0] = 2.0, -0.5
    np.testing.assert_allclose(more[0], plain[0] + added, atol=0.06)  # float16, and what int8 is put back by
    assert np.mean(more[1] == upsampled_argmax(plain[0] + added, more[1].shape)) > 0.995
    before, after = (np.mean(labels == 2) for labels in (plain[1], more[1]))
    assert after > 1.3 * before > 0


def test_a_graph_may_ask_for_it_twice(tmp_path: Path) -> None:
    """A side-car prefers, and a graph on top of it."""
    sidecar = {"classes": tiny.CLASSES, "prefer": {"wall": 0.25}}
    path = tiny.write(tmp_path, tiny.network(outputs={"out": 3}), sidecar)
    picture = replace(frame(0), image=tiny.picture())
    (seen,) = Segment(network=str(path), precision="f32", prefer={"wall": 0.5, "sky": -1})(iter([picture]))
    assert seen.semantic is not None
    assert seen.semantic.scores is not None
    want = tiny.said(picture.image, 3) + np.array([0, 0.75, -1])[:, None, None]
    np.testing.assert_allclose(seen.semantic.scores, want, atol=2e-3)


def test_what_is_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^segment.prefer: unknown class 'lorry'; the classes are sky, building"):
        next(Segment(prefer={"lorry": 1.0})(Synthetic(frames=1)(iter(()))))
    sidecar = {"classes": tiny.CLASSES, "prefer": {"lorry": 1.0}}
    path = tiny.write(tmp_path, tiny.network(outputs={"out": 3}), sidecar)
    with pytest.raises(ConfigError, match=r"mine\.yaml: prefer: unknown class 'lorry'; the classes are ground"):
        open_network(path)


def test_a_network_that_says_labels_cannot_prefer(tmp_path: Path) -> None:
    model = tiny.network(outputs={"planes": 3})
    model.graph.node.append(helper.make_node("ArgMax", ["planes"], ["small"], axis=1, keepdims=1))
    model.graph.node.append(helper.make_node("Cast", ["small"], ["float"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("Resize", ["float", "", "", "size"], ["large"], mode="nearest"))
    model.graph.node.append(helper.make_node("Cast", ["large"], ["said"], to=TensorProto.UINT8))
    model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [4], [1, 1, *tiny.SIZE]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("said", TensorProto.UINT8, [None] * 4))
    path = tiny.write(tmp_path, model, {"classes": tiny.CLASSES})
    with pytest.raises(NetworkError, match="mine: says labels, not scores: none of its classes can be preferred"):
        preferring(open_network(path), {"wall": 1.0}, where="")
