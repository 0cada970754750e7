"""`segment` on numbered frames and on real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import helper, numpy_helper
from pydantic import ValidationError

from stream_seg.engines.open import open_engine
from stream_seg.errors import NetworkError
from stream_seg.network.network import open_network
from stream_seg.ops.resize import resize_image
from stream_seg.stages.segment import Segment, defer_inference, halve_network, segment_image
from tests.support import small_networks
from tests.support.frames import frame


def test_frames_keep_their_numbers_and_get_their_classes(tmp_path: Path) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    frames = [frame(seq, size=(64, 96)) for seq in range(5)]
    out = list(Segment(network=str(path), precision="f32")(iter(frames)))
    assert [f.seq for f in out] == [0, 1, 2, 3, 4]
    for before, after in zip(frames, out, strict=True):
        assert after.image is before.image
        assert after.semantic is not None
        assert after.semantic.size == small_networks.SIZE
        assert after.semantic.classes.names == tuple(small_networks.CLASSES)
        want = small_networks.expected_scores(np.full((*small_networks.SIZE, 3), before.seq, np.uint8), 3)
        np.testing.assert_allclose(after.semantic.scores, want, atol=1e-4)
        assert after.semantic.labels.shape == small_networks.SIZE


def test_the_road_is_where_it_is(data: Path) -> None:
    image = cv2.imread(str(data / "camvid/val/0016E5_07959.png"))
    (out,) = Segment()(iter([replace(frame(0), image=image)]))
    assert out.semantic is not None
    labels, names = out.semantic.labels, out.semantic.classes
    height = labels.shape[0]
    assert np.mean(labels[height * 7 // 8 :] == names.index("road")) > 0.7
    assert np.mean(labels[: height // 16] == names.index("road")) < 0.02


def test_a_wrong_network_is_refused_before_the_first_frame() -> None:
    with pytest.raises(ValidationError, match="unknown network 'raod'; known: road"):
        Segment(network="raod")
    taken = []

    def frames():  # type: ignore[no-untyped-def]
        taken.append(1)
        yield frame(0)

    with pytest.raises(NetworkError, match="no such file"):
        next(iter(Segment(network="missing.onnx")(frames())))
    assert not taken


def test_the_engine_is_closed_with_the_stage(tmp_path: Path) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    running = Segment(network=str(path))(frame(i) for i in range(9))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert list(running) == []


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (540, 960), (360, 480)])
def test_a_large_picture_is_reduced_by_area(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    area = cv2.resize(noise, (480, 352), interpolation=cv2.INTER_AREA).astype(int)
    ours = np.abs(resize_image(noise, (352, 480)) - area).mean()
    plain = np.abs(cv2.resize(noise, (480, 352)) - area).mean()
    assert resize_image(noise, (352, 480)).shape == (352, 480, 3)
    assert ours <= plain
    if size[0] == 1080:
        assert ours < 0.5 * plain


def test_a_picture_of_the_right_size_is_not_copied() -> None:
    image = small_networks.make_image()
    assert resize_image(image, small_networks.SIZE) is image


def test_a_picture_may_be_drawn_on_before_the_engine_is_asked(tmp_path: Path) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    image = small_networks.make_image()
    with open_engine(open_network(path), precision="f32") as engine:
        want = segment_image(image, engine).scores
        ask = defer_inference(image, engine, size=small_networks.SIZE)
        image[:] = 0
        np.testing.assert_array_equal(ask().scores, want)


def test_a_smaller_network_has_half_the_sides(tmp_path: Path) -> None:
    path = small_networks.write_network(
        tmp_path, small_networks.make_model(outputs={"out": 3}), {"classes": small_networks.CLASSES}
    )
    assert halve_network(open_network(path)).size == (8, 12)


@pytest.mark.parametrize("size", [(352, 480), (368, 480)])
def test_half_a_size_is_rounded_down_to_what_the_strides_divide(size: tuple[int, int]) -> None:
    half = halve_network(open_network("road", size=size))
    assert half.size == (176, 240)
    with open_engine(half, backend="onnxruntime", precision="f32") as engine:
        assert segment_image(np.zeros((*size, 3), np.uint8), engine).labels.shape == (176, 240)


def test_a_network_with_its_size_built_in_is_not_tried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = small_networks.make_model(outputs={"planes": 3}, batch=1)
    model.graph.node.append(helper.make_node("Add", ["planes", "places"], ["out"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 3, 8, 12), np.float32), "places"))
    model.graph.output[0].name = "out"
    path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    stage = Segment(network=str(path), precision="f32", target_ms=33, policy="latest")
    assert len(list(stage(frame(seq, size=(16, 24)) for seq in range(3)))) == 3
    (told,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told.startswith("segment.target_ms: no smaller network, only fewer key frames: mine: ")
    assert told.endswith("pictures of 16x24 (height x width) and none of 8x12, 8x8")
