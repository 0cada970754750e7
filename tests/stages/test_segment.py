"""The stage `segment` on numbered frames and on real ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Semaphore
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import helper, numpy_helper
from pydantic import ValidationError

from stream_seg.backends.engine import Engine, EngineSpec, Result
from stream_seg.backends.registry import BACKENDS
from stream_seg.cli.listing import describe_stages
from stream_seg.config.graph_file import check
from stream_seg.datasets.palettes import CITYSCAPES, DISTINCT, colour_classes
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.frame import Age, EngineInfo, Signal
from stream_seg.network.network import open_network
from stream_seg.ops.resize import resize_image
from stream_seg.stages.base import Context, Frames, Traits
from stream_seg.stages.segment import Segment, defer_inference, halve_network, segment_image
from stream_seg.types import Classes
from tests.support import small_networks
from tests.support.fake_stages import FunctionStage, make_chain, run_graph
from tests.support.frames import make_frame

AHEAD = Context(ready=lambda: True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a small network."""
    model = small_networks.make_model(outputs={"out": 3})
    return small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})


def test_frames_keep_their_numbers_and_get_scores(path: Path) -> None:
    frames = [make_frame(seq, size=(64, 96)) for seq in range(5)]
    out = list(Segment(network=str(path), precision="f32")(iter(frames)))
    assert [f.seq for f in out] == [0, 1, 2, 3, 4]
    for before, after in zip(frames, out, strict=True):
        assert after.image is before.image
        assert after.semantic is not None
        assert after.semantic.size == small_networks.SIZE
        assert after.semantic.classes.names == tuple(small_networks.CLASSES)
        expected = small_networks.expected_scores(np.full((*small_networks.SIZE, 3), before.seq, np.uint8), 3)
        np.testing.assert_allclose(after.semantic.scores, expected, atol=1e-4)
        assert after.semantic.labels.shape == small_networks.SIZE
        np.testing.assert_array_equal(after.semantic.scaled, resize_image(before.image, small_networks.SIZE))


def test_a_palette_colours_the_classes_by_name(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        (out,) = Segment(network=str(path), palette="cityscapes")(iter([make_frame(0, size=(64, 96))]))
        assert out.semantic is not None
    assert out.semantic.classes == colour_classes(small_networks.CLASSES, CITYSCAPES)[0]
    messages = [message for message in caplog.messages if "palette" in message]
    assert messages == ["segment: palette: cityscapes has no colours for ground: distinct ones"]
    (plain,) = Segment(network=str(path))(iter([make_frame(0, size=(64, 96))]))
    assert plain.classes == colour_classes(small_networks.CLASSES, DISTINCT)[0]


def test_the_road_is_at_the_bottom_of_the_image(data: Path) -> None:
    image = cv2.imread(str(data / "camvid/val/0016E5_07959.png"))
    (out,) = Segment()(iter([replace(make_frame(0), image=image)]))
    assert out.semantic is not None
    labels, names = out.semantic.labels, out.semantic.classes
    height = labels.shape[0]
    assert np.mean(labels[height * 7 // 8 :] == names.index("road")) > 0.7
    assert np.mean(labels[: height // 16] == names.index("road")) < 0.02


def test_a_wrong_network_is_an_error_before_the_first_frame() -> None:
    with pytest.raises(ValidationError, match="unknown network 'raod', did you mean road"):
        Segment(network="raod")
    frames = iter([make_frame(0)])
    with pytest.raises(NetworkError, match="no such file"):
        next(iter(Segment(network="missing.onnx")(frames)))
    assert next(frames, None) is not None, "no frame was taken"


@pytest.mark.parametrize(
    ("key", "allowed"), [("backend", "auto or cpu or gpu or tensorrt or"), ("precision", "auto or int8 or fp8")]
)
def test_backend_and_precision_must_be_registered(key: str, allowed: str) -> None:
    document = {"stages": {"synthetic": {}, "segment": {"input": "synthetic", key: "cuda"}}}
    with pytest.raises(ConfigError, match=rf"^graph: stages\.segment\.{key}: expected {allowed}.*, got 'cuda'$"):
        check(document, where="graph")


def test_a_registered_backend_is_allowed_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "fifth", replace(BACKENDS["torch"], precisions=("int4", "f32")))
    assert Segment(backend="fifth", precision="int4").backend == "fifth"
    text = describe_stages({"segment": Segment})
    assert "or fifth; default auto)" in text
    assert "(auto or int4 or int8" in text


def test_a_closed_stage_yields_nothing(path: Path) -> None:
    frames = Segment(network=str(path))(make_frame(i) for i in range(9))
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert list(frames) == []


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "torch"])
def test_several_images_at_a_time_give_the_results_of_one_in_order(path: Path, backend: str) -> None:
    noise = [small_networks.make_image((64, 96), seed=seq) for seq in range(12)]
    frames = [replace(make_frame(seq), image=image) for seq, image in enumerate(noise)]
    frames[5] = replace(frames[5], signal=Signal("stalled", "no data", 0))

    def run(requests: int) -> list[tuple[int, bytes | None]]:
        stage = Segment(network=str(path), backend=backend, precision="f32", requests=requests).bind(AHEAD)
        done = ((frame.seq, frame.semantic) for frame in stage(iter(frames)))
        return [(seq, semantic and semantic.labels.tobytes() + semantic.scores.tobytes()) for seq, semantic in done]

    expected = run(1)
    assert [seq for seq, _ in expected] == list(range(12))
    assert [seq for seq, result in expected if result is None] == [5]
    for requests in (2, 3, 64):
        assert run(requests) == expected


def test_the_shipped_network_gives_byte_identical_scores_with_two_requests(data: Path) -> None:
    image = cv2.imread(str(next((data / "camvid/val").glob("*.png"))))
    images = [np.ascontiguousarray(np.roll(image, 40 * seq, axis=1)) for seq in range(4)]
    frames = [replace(make_frame(seq), image=image) for seq, image in enumerate(images)]
    one, two = ([f.semantic.scores for f in Segment(requests=n).bind(AHEAD)(iter(frames))] for n in (1, 2))
    for before, after in zip(one, two, strict=True):
        np.testing.assert_array_equal(before, after)


class Trio:
    """An engine that computes two images and takes a third, whose calls wait for each other: fewer at a time fail."""

    calls = 3

    def __init__(self, fails: Callable[[int], bool] = lambda number: False) -> None:
        classes = Classes(("a", "b"), ((0, 0, 0), (1, 1, 1)))
        self.spec = EngineSpec((4, 6), classes, EngineInfo("n", "b", "f32", "cpu", requests=2))
        self._all, self._fails = Barrier(3), fails

    def infer(self, images: Any) -> Result:
        self._all.wait(10)
        if self._fails(int(images[0, 0, 0, 0])):
            raise NetworkError("n: failed")
        return Result(labels=np.zeros((1, 4, 6), np.uint8))


def run_trio(engine: Trio, monkeypatch: pytest.MonkeyPatch, path: Path) -> Frames:
    """Return nine frames of the stage `segment`, whose engine is a Trio."""
    monkeypatch.setattr("stream_seg.stages.segment.open_engine", lambda *_, **__: nullcontext(engine))
    return Segment(network=str(path)).bind(AHEAD)(make_frame(seq) for seq in range(9))


def test_an_engine_gets_as_many_calls_as_it_takes(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    assert [frame.seq for frame in run_trio(Trio(), monkeypatch, path)] == list(range(9))


def test_frames_before_a_failing_one_are_yielded(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    out = run_trio(Trio(lambda seq: seq == 3), monkeypatch, path)
    assert [next(out).seq for _ in range(3)] == [0, 1, 2]
    with pytest.raises(NetworkError, match="n: failed"):
        next(out)


def test_a_frame_is_finished_before_the_next_one_has_come(path: Path) -> None:
    done = Semaphore(1)

    def send(_: Frames) -> Frames:
        for seq in range(6):
            assert done.acquire(timeout=10)
            yield make_frame(seq)

    def finish(frames: Frames) -> Frames:
        for frame in frames:
            yield frame
            done.release()

    sink = FunctionStage(finish, Traits(role="output"))
    graph = run_graph(make_chain(send, Segment(network=str(path), requests=3), sink))
    assert graph.error is None
    assert graph.workers[-1].yielded == 6


@pytest.mark.parametrize(
    ("cores", "keys", "context", "requests"),
    [
        (1, {}, Context(), 1),
        (2, {}, Context(), 2),
        (16, {}, Context(), 4),
        (2, {"threads": 2}, Context(), 1),
        (16, {"threads": 8}, Context(), 2),
        (2, {"threads": 8}, Context(), 1),
        (16, {}, Context(policy="latest"), 1),
        (16, {}, Context(policy="latest", other_sources=True), 4),
        (1, {"requests": 3}, Context(policy="latest"), 3),
    ],
)
def test_the_number_of_requests_depends_on_the_cores(
    monkeypatch: pytest.MonkeyPatch, path: Path, cores: int, keys: dict[str, Any], context: Context, requests: int
) -> None:
    opened: dict[str, Any] = {}

    def open_two(network: Any, **options: Any) -> Engine:
        opened.update(options)
        return open_engine(network, **options)

    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr("stream_seg.stages.segment.open_engine", open_two)
    (frame,) = Segment(network=str(path), **keys).bind(context)(iter([make_frame(0)]))
    assert (opened["requests"], opened["threads"]) == (requests, keys.get("threads", 1))
    assert frame.semantic is not None
    assert frame.semantic.engine.requests == requests


@pytest.mark.parametrize("size", [(1080, 1920), (720, 1280), (540, 960), (360, 480)])
def test_large_images_are_resized_by_area(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    area = cv2.resize(noise, (480, 352), interpolation=cv2.INTER_AREA).astype(int)
    ours = np.abs(resize_image(noise, (352, 480)) - area).mean()
    plain = np.abs(cv2.resize(noise, (480, 352)) - area).mean()
    assert resize_image(noise, (352, 480)).shape == (352, 480, 3)
    assert ours <= plain
    if size[0] == 1080:
        assert ours < 0.5 * plain


def test_an_image_of_the_right_size_is_not_copied() -> None:
    image = small_networks.make_image()
    assert resize_image(image, small_networks.SIZE) is image


def test_an_image_may_be_drawn_on_before_a_deferred_inference(path: Path) -> None:
    image = small_networks.make_image()
    with open_engine(open_network(path), precision="f32") as engine:
        expected = segment_image(image, engine).scores
        infer = defer_inference(image, engine, size=small_networks.SIZE)
        image[:] = 0
        np.testing.assert_array_equal(infer().scores, expected)


def test_a_halved_network_has_half_the_sides(path: Path) -> None:
    assert halve_network(open_network(path)).size == (8, 12)


@pytest.mark.parametrize("size", [(352, 480), (368, 480)])
def test_half_the_size_is_rounded_down_to_multiples_of_the_strides(size: tuple[int, int]) -> None:
    half = halve_network(open_network("road", size=size))
    assert half.size == (176, 240)
    with open_engine(half, backend="onnxruntime", precision="f32") as engine:
        assert segment_image(np.zeros((*size, 3), np.uint8), engine).labels.shape == (176, 240)


def test_frames_say_what_their_quality_level_means(path: Path) -> None:
    def run(**keys: Any) -> list[tuple[int, int | str, tuple[int, int] | None]]:
        """Return level, interval of key frames and input size of each frame, while earlier frames are reported late."""
        stage = Segment(network=str(path), precision="f32", **keys).bind(Context(policy="latest"))
        frames = stage(replace(make_frame(seq, size=(16, 24)), ages=(Age(0, 1000.0),)) for seq in range(20))
        temporal = [frame.temporal for frame in frames if frame.temporal is not None]
        return [(one.quality_level, one.every, one.input_size) for one in temporal]

    assert run() == []
    assert set(run(every=3)) == {(0, 3, small_networks.SIZE)}
    lowered = run(target_ms=100)
    assert lowered[0] == (0, 1, small_networks.SIZE)
    assert lowered[-1] == (1, 2, small_networks.SIZE)
    assert run(target_ms=100, every=5)[-1] == (1, 5, (8, 12))  # half the size


def test_a_network_of_fixed_size_gets_fewer_key_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = small_networks.make_model(outputs={"planes": 3}, batch=1)
    model.graph.node.append(helper.make_node("Add", ["planes", "places"], ["out"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 3, 8, 12), np.float32), "places"))
    model.graph.output[0].name = "out"
    path = small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES})
    stage = Segment(network=str(path), precision="f32", target_ms=33).bind(Context(policy="latest"))
    assert len(list(stage(make_frame(seq, size=(16, 24)) for seq in range(3)))) == 3
    (message,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith("segment.target_ms: no smaller network, only fewer key frames: mine: ")
    assert message.endswith("only takes images of 16x24 (height x width), not of 8x12, 8x8")
