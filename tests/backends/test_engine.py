"""The contract of every engine, on every backend that works on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any

import numpy as np
import pytest

from stream_seg.backends.choose import available_backends
from stream_seg.backends.engine import Engine, EngineSpec, Result, make_engine
from stream_seg.backends.scores import covers_image
from stream_seg.engines.open import open_engine
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network, open_network
from stream_seg.stages.segment import segment_image
from stream_seg.types import VOID, Classes
from tests.support import small_networks


@pytest.fixture(params=available_backends())
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    model = small_networks.make_model(outputs={"out": 3})
    return open_network(small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES}))


def test_scores_are_those_of_the_network(backend: str, network: Network) -> None:
    images = np.stack([small_networks.make_image(seed=i) for i in range(3)])
    with open_engine(network, backend=backend, precision="f32") as engine:
        result = engine.infer(images)
    assert result.labels is None
    assert result.scores is not None
    assert result.scores.dtype == np.float32
    assert result.scores.flags.c_contiguous
    expected = [small_networks.expected_scores(image, 3) for image in images]
    np.testing.assert_allclose(result.scores, expected, atol=1e-4)


def test_a_result_outlives_the_next_one(backend: str, network: Network) -> None:
    with open_engine(network, backend=backend) as engine:
        first = engine.infer(small_networks.make_image(seed=1)[None]).scores
        assert first is not None
        copy = first.copy()
        engine.infer(small_networks.make_image(seed=2)[None])
    np.testing.assert_array_equal(first, copy)


def test_images_may_be_read_only(backend: str, network: Network) -> None:
    image = small_networks.make_image()[None]
    image.flags.writeable = False
    with open_engine(network, backend=backend, precision="f32") as engine:
        scores = engine.infer(image).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], small_networks.expected_scores(image[0], 3), atol=1e-4)


def test_two_threads_get_their_own_results(backend: str, network: Network) -> None:
    images = [small_networks.make_image(seed=i)[None] for i in range(40)]
    with open_engine(network, backend=backend, precision="f32") as engine, ThreadPoolExecutor(2) as pool:
        results = list(pool.map(engine.infer, images))
    for image, result in zip(images, results, strict=True):
        assert result.scores is not None
        np.testing.assert_allclose(result.scores[0], small_networks.expected_scores(image[0], 3), atol=1e-4)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, *small_networks.SIZE, 3), np.float32),
        np.zeros((*small_networks.SIZE, 3), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
    ],
    ids=["float", "no batch", "other size"],
)
def test_other_arrays_are_refused(backend: str, network: Network, images: np.ndarray) -> None:
    with (
        open_engine(network, backend=backend) as engine,
        pytest.raises(NetworkError, match=r"mine: takes uint8 images of shape \(N, 16, 24, 3\), got "),
    ):
        engine.infer(images)


def test_a_closed_engine_is_refused(backend: str, network: Network) -> None:
    with open_engine(network, backend=backend) as engine:
        pass
    engine.close()
    with pytest.raises(NetworkError, match="mine: the engine is closed"):
        engine.infer(small_networks.make_image()[None])


def test_the_spec_describes_the_engine(backend: str, network: Network) -> None:
    with open_engine(network, backend=backend, precision="f32") as engine:
        spec = engine.spec
    assert (spec.size, spec.classes) == (small_networks.SIZE, network.classes)
    assert (spec.info.network, spec.info.backend, spec.info.precision) == ("mine", backend, "f32")
    assert spec.info.device


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_auto_uses_int8_if_the_network_has_it(backend: str, network: Network, tmp_path: Path) -> None:
    model = small_networks.make_model(outputs={"a": 2, "b": 3})
    sidecar = {"classes": small_networks.CLASSES, "heads": [{"output": "b", "channels": small_networks.CLASSES}]}
    other = small_networks.write_network(tmp_path, model, sidecar, name="other")
    both = replace(network, int8=open_network(other).f32)  # another network tells which of the two ran
    with open_engine(both, backend=backend) as engine:
        assert engine.spec.info.precision == "int8"
        scores = engine.infer(small_networks.make_image()[None]).scores
    assert scores is not None
    expected = small_networks.expected_scores(small_networks.make_image(), 3, seed=1)
    np.testing.assert_allclose(scores[0], expected, atol=1e-4)
    with pytest.raises(NetworkError, match=r"precision int8 needs the network's int8 form; available: .*f32"):
        open_engine(network, backend=backend, precision="int8")


def test_the_output_must_match_the_classes(backend: str, network: Network) -> None:
    two = replace(network.classes, names=("a", "b"), colours=((0, 0, 0), (1, 1, 1)))
    with pytest.raises(NetworkError, match=r"\(1, 3, 8, 12\); expected \(1, 2, h, w\)"):
        open_engine(replace(network, classes=two), backend=backend)


def test_an_invalid_network_is_one_line(backend: str, network: Network) -> None:
    model = small_networks.make_model(outputs={"scores": 3})
    model.graph.node[0].op_type = "NoSuchOperator"
    model.graph.input[0].name = "image"
    model.graph.node[0].input[0] = "image"
    with pytest.raises(NetworkError, match=r"^mine: .* cannot ") as caught:
        open_engine(replace(network, f32=model.SerializeToString()), backend=backend)
    assert "\n" not in str(caught.value)


def fake_engine(*results: Result) -> Engine:
    """Return an engine of three classes with these results, one after the other."""
    spec = EngineSpec((8, 8), Classes(("a", "b", "c"), ((0, 0, 0),) * 3), EngineInfo("mine", "fake", "f32", "none"))
    remaining = iter(results)
    return Engine(spec, lambda _images: next(remaining))


def test_a_batch_has_one_result_per_image() -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    engine = fake_engine(*(Result(scores=np.zeros((n, 3, 4, 4), np.float32)) for n in (5, 0, 1)))
    for number in (5, 0):
        with pytest.raises(NetworkError, match=f"^mine: output batch is {number} for 1 image; .* not a mask for every"):
            engine.infer(image)
    assert engine.infer(image).scores is not None


def test_a_label_without_a_class_is_refused() -> None:
    image, labels = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8)
    labels[0, :3, 0] = 255, 1, 2
    invalid = labels.copy()
    invalid[0, 5, 5] = 3
    engine = fake_engine(Result(labels=labels), Result(labels=invalid))
    assert engine.infer(image).labels is labels
    message = r"^mine: output has label 3; its classes are 0 to 2 \(a, b, c\), and 255 is void"
    with pytest.raises(NetworkError, match=message):
        engine.infer(image)


def test_an_engine_may_be_closed_during_a_call_which_ends_with_its_result() -> None:
    def close(images: Any) -> Result:
        engine.close()
        return Result(labels=images[..., 0])

    spec = fake_engine().spec
    engine = Engine(replace(spec, info=replace(spec.info, requests=2)), close)
    results: list[Result] = []
    image = np.ones((1, 8, 8, 3), np.uint8)
    thread = Thread(target=lambda: results.append(engine.infer(image)), daemon=True)
    thread.start()
    thread.join(10)
    assert [result.labels.max() for result in results if result.labels is not None] == [1]
    with pytest.raises(NetworkError, match="mine: the engine is closed"):
        engine.infer(image)


@pytest.mark.parametrize(("requests", "queued"), [(1, 0), (2, 0), (2, 1)])
def test_an_engine_runs_as_many_calls_at_a_time_as_it_takes(requests: int, queued: int) -> None:
    running, entered = Semaphore(0), Semaphore(0)

    def run(images: Any) -> Result:
        entered.release()
        assert running.acquire(timeout=10)
        return Result(labels=images[..., 0])

    spec = fake_engine().spec
    engine = Engine(replace(spec, info=replace(spec.info, requests=requests)), run, queued=queued)
    assert engine.calls == requests + queued
    image = np.ones((1, 8, 8, 3), np.uint8)
    threads = [Thread(target=engine.infer, args=(image,), daemon=True) for _ in range(engine.calls + 1)]
    for thread in threads:
        thread.start()
    assert all(entered.acquire(timeout=10) for _ in range(engine.calls))
    assert not entered.acquire(timeout=0.1)
    running.release(len(threads))
    for thread in threads:
        thread.join(10)
    assert entered.acquire(timeout=10)


def test_openvino_takes_a_call_more_than_it_computes_at_a_time(network: Network) -> None:
    for requests, calls in ((1, 1), (2, 3)):
        with open_engine(network, backend="openvino", precision="f32", requests=requests) as engine:
            assert (engine.spec.info.requests, engine.calls) == (requests, calls)


@pytest.mark.parametrize("least", [1, 0])
def test_a_detector_is_refused(backend: str, least: int, network: Network) -> None:
    """It outputs one mask of 28x28 per bright row, and `least` for a black image."""
    model = small_networks.make_mask_model(least=least)
    detector = replace(network, f32=model.SerializeToString(), int8=None)
    size = "scores of shape .* in the proportions of the input"
    message = rf"^mine: (the size of output scores depends on|output batch is \d+ for|.* cannot |{size})"
    with pytest.raises(NetworkError, match=message) as caught:
        open_engine(detector, backend=backend).infer(np.full((1, *small_networks.SIZE, 3), 200, np.uint8))
    assert "\n" not in str(caught.value)


def test_an_error_of_the_backend_becomes_a_network_error() -> None:
    def fail(images: np.ndarray) -> Result:
        raise RuntimeError("Check failed\n at line 3")

    spec = EngineSpec((8, 8), open_network("road").classes, EngineInfo("road", "fake", "f32", "none"))
    with pytest.raises(NetworkError, match=r"^road: fake failed: Check failed at line 3$"):
        Engine(spec, fail, errors=(RuntimeError,)).infer(np.zeros((1, 8, 8, 3), np.uint8))


def test_opening_an_engine_opens_no_connection_and_starts_no_process() -> None:
    watched = ["socket.connect", "socket.getaddrinfo", "os.fork", "subprocess.Popen"]
    program = (
        f"import json, sys\nseen, watched = [], {watched}\n"
        "sys.addaudithook(lambda event, _: seen.append(event) if event in watched else None)\n"
        "from stream_seg.engines.open import open_engine\nfrom stream_seg.network.network import open_network\n"
        "open_engine(open_network('road'), backend='openvino')\nprint(json.dumps([seen, 'torch' in sys.modules]))\n"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(process.stdout) == [[], False]


def test_scores_that_are_no_number_are_void(caplog: pytest.LogCaptureFixture) -> None:
    """A network that divides by the contrast of its input gives NaN for a black image."""
    image, scores = np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 3, 4, 4), np.float32)
    scores[0, 2, :2] = 5
    broken = scores.copy()
    broken[0, 1, 0, 0], broken[0, :, 3, 3] = np.nan, np.nan
    engine = fake_engine(Result(scores=scores), Result(scores=broken), Result(scores=broken))
    assert segment_image(image[0], engine).unknown is None
    for _ in range(2):
        semantic = segment_image(image[0], engine)
        assert np.isfinite(semantic.scores).all()
        labels = semantic.labels_at((4, 4))
        assert labels[0, 0] == labels[3, 3] == VOID
        assert np.count_nonzero(labels == VOID) == 2
        assert labels[0, 1] == labels[1, 0] == 2, "the pixels beside it keep their class"
    assert [r.message for r in caplog.records] == [
        "mine: scores that are not a number (NaN); these pixels are void; reported once"
    ]


def test_infinite_scores_are_limited_to_the_others() -> None:
    scores = np.zeros((1, 3, 2, 2), np.float32)
    scores[0, :, 0, 0], scores[0, :, 1, 1] = (3, np.inf, -np.inf), (-np.inf, -np.inf, -2)
    result = fake_engine(Result(scores=scores)).infer(np.zeros((1, 8, 8, 3), np.uint8))
    assert result.scores is not None
    assert result.unknown is None
    np.testing.assert_array_equal(result.scores[0, :, 0, 0], [3, 4, -3])
    np.testing.assert_array_equal(result.scores[0, :, 1, 1], [-3, -3, -2])
    endless = Result(scores=np.full((1, 3, 2, 2), np.inf, np.float32))
    result = fake_engine(endless).infer(np.zeros((1, 8, 8, 3), np.uint8))
    np.testing.assert_array_equal(result.scores, np.ones((1, 3, 2, 2)))


@pytest.mark.parametrize(
    ("output", "size", "covers"),
    [
        ((8, 12), (16, 24), True),
        ((7, 11), (16, 24), True),
        ((9, 13), (16, 24), True),
        ((384, 640), (384, 640), True),
        ((12, 20), (384, 640), True),
        ((11, 20), (352, 640), True),
        ((324, 580), (512, 768), False),
        ((12, 8), (16, 24), False),
        ((96, 4), (64, 96), False),
    ],
)
def test_an_output_covers_the_image_if_it_has_its_proportions(output: Any, size: Any, covers: bool) -> None:
    assert covers_image(output, size) == covers


def test_copies_fill_a_fixed_batch(network: Network) -> None:
    counts = []

    def compute(images: np.ndarray) -> np.ndarray:
        counts.append(len(images))
        return images[:, None, ::2, ::2, 0].astype(np.float32).repeat(3, axis=1)

    info = EngineInfo("mine", "fake", "f32", "a test")
    engine = make_engine(network, "scores", compute, info=info, batch=4, least=4)
    images = np.stack([small_networks.make_image(seed=seed) for seed in range(6)])
    scores = engine.infer(images).scores
    assert counts == [4, 4]
    np.testing.assert_array_equal(scores, images[:, None, ::2, ::2, 0].repeat(3, axis=1))
