"""Networks with a per-class bias on their scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.network.network import Network, bias_network, open_network
from stream_seg.ops.labels import upsampled_argmax
from stream_seg.stages.segment import Segment, segment_image
from stream_seg.stages.synthetic import Synthetic
from tests.support import small_networks
from tests.support.frames import make_frame

POLE = {"pole": 2.0}


def compute(network: Network, image: np.ndarray, *, backend: str, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and labels."""
    with open_engine(network, backend=backend, precision=precision) as engine:
        semantic = segment_image(image, engine)
        assert semantic.scores is not None
        return np.array(semantic.scores, np.float32), np.array(semantic.labels)


@pytest.mark.parametrize(("backend", "precision"), [("openvino", "int8"), ("onnxruntime", "f32")])
def test_the_bias_is_added_to_the_scores_and_changes_the_labels(backend: str, precision: str) -> None:
    (synthetic,) = Synthetic(frames=1)(iter(()))
    plain, more = (
        compute(
            bias_network(open_network("road"), prefer, where=""), synthetic.image, backend=backend, precision=precision
        )
        for prefer in ({}, {"pole": 2.0, "sky": -0.5})
    )
    added = np.zeros((11, 1, 1), np.float32)
    added[[2, 0], 0, 0] = 2.0, -0.5
    np.testing.assert_allclose(more[0], plain[0] + added, atol=0.06)  # float16, and what int8 is put back by
    assert np.mean(more[1] == upsampled_argmax(plain[0] + added, more[1].shape)) > 0.995
    before, after = (np.mean(labels == 2) for labels in (plain[1], more[1]))
    assert after > 1.3 * before > 0


def test_the_biases_of_side_car_and_graph_add_up(tmp_path: Path) -> None:
    sidecar = {"classes": small_networks.CLASSES, "prefer": {"wall": 0.25}}
    path = small_networks.write_network(tmp_path, small_networks.make_model(outputs={"out": 3}), sidecar)
    source = replace(make_frame(0), image=small_networks.make_image())
    (segmented,) = Segment(network=str(path), precision="f32", prefer={"wall": 0.5, "sky": -1})(iter([source]))
    assert segmented.semantic is not None
    assert segmented.semantic.scores is not None
    expected = small_networks.expected_scores(source.image, 3) + np.array([0, 0.75, -1])[:, None, None]
    np.testing.assert_allclose(segmented.semantic.scores, expected, atol=2e-3)


def test_an_unknown_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^segment.prefer: unknown class 'lorry'; the classes are sky, building"):
        next(Segment(prefer={"lorry": 1.0})(Synthetic(frames=1)(iter(()))))
    sidecar = {"classes": small_networks.CLASSES, "prefer": {"lorry": 1.0}}
    path = small_networks.write_network(tmp_path, small_networks.make_model(outputs={"out": 3}), sidecar)
    with pytest.raises(ConfigError, match=r"mine\.yaml: prefer: unknown class 'lorry'; the classes are ground"):
        open_network(path)


def test_a_network_without_scores_takes_no_bias(tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"planes": 3})
    model.graph.node.append(helper.make_node("ArgMax", ["planes"], ["small"], axis=1, keepdims=1))
    model.graph.node.append(helper.make_node("Cast", ["small"], ["float"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("Resize", ["float", "", "", "size"], ["large"], mode="nearest"))
    model.graph.node.append(helper.make_node("Cast", ["large"], ["labels"], to=TensorProto.UINT8))
    model.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [4], [1, 1, *small_networks.SIZE]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, [None] * 4))
    path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    with pytest.raises(NetworkError, match="mine: prefer: the network outputs labels, no scores"):
        bias_network(open_network(path), {"wall": 1.0}, where="")
