"""The contract that every engine keeps, whatever computes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from stream_seg.backends import device as target
from stream_seg.backends import registry as table
from stream_seg.backends.device import PRECISIONS, Target
from stream_seg.backends.engine import Engine, EngineSpec, Result
from stream_seg.backends.openvino import settled
from stream_seg.backends.registry import chosen, installed
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network, open_network
from stream_seg.stages.segment import Segment
from stream_seg.types import Classes
from tests.support import small_networks as tiny


@pytest.fixture(params=installed())
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return open_network(tiny.write(tmp_path, tiny.network(outputs={"out": 3}), {"classes": tiny.CLASSES}))


def test_scores_are_what_the_network_says(backend: str, network: Network) -> None:
    with open_engine(network, backend=backend, precision="f32") as engine:
        images = np.stack([tiny.picture(seed=i) for i in range(3)])
        result = engine.infer(images)
    assert result.labels is None
    assert result.scores is not None
    assert result.scores.dtype == np.float32
    assert result.scores.flags.c_contiguous
    np.testing.assert_allclose(result.scores, [tiny.said(image, 3) for image in images], atol=1e-4)


def test_a_result_outlives_the_next_one(backend: str, network: Network) -> None:
    with open_engine(network, backend=backend) as engine:
        first = engine.infer(tiny.picture(seed=1)[None]).scores
        assert first is not None
        kept = first.copy()
        engine.infer(tiny.picture(seed=2)[None])
    np.testing.assert_array_equal(first, kept)


def test_pictures_may_be_read_only(backend: str, network: Network) -> None:
    image = tiny.picture()[None]
    image.flags.writeable = False
    with open_engine(network, backend=backend, precision="f32") as engine:
        scores = engine.infer(image).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], tiny.said(image[0], 3), atol=1e-4)


def test_two_threads_get_their_own_answers(backend: str, network: Network) -> None:
    images = [tiny.picture(seed=i)[None] for i in range(40)]
    with open_engine(network, backend=backend, precision="f32") as engine, ThreadPoolExecutor(2) as pool:
        results = list(pool.map(engine.infer, images))
    for image, result in zip(images, results, strict=True):
        assert result.scores is not None
        np.testing.assert_allclose(result.scores[0], tiny.said(image[0], 3), atol=1e-4)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, *tiny.SIZE, 3), np.float32), np.zeros((*tiny.SIZE, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)],
    ids=["float", "no batch", "other size"],
)
def test_other_arrays_are_refused(backend: str, network: Network, images: np.ndarray) -> None:
    with (
        open_engine(network, backend=backend) as engine,
        pytest.raises(NetworkError, match=r"mine: .*\(N, 16, 24, 3\)"),
    ):
        engine.infer(images)


def test_a_closed_engine_says_so(backend: str, network: Network) -> None:
    with open_engine(network, backend=backend) as engine:
        pass
    engine.close()
    with pytest.raises(NetworkError, match="closed"):
        engine.infer(tiny.picture()[None])


def test_it_says_what_computes(backend: str, network: Network) -> None:
    with open_engine(network, backend=backend, precision="f32") as engine:
        spec = engine.spec
    assert (spec.size, spec.classes) == (tiny.SIZE, network.classes)
    assert (spec.info.network, spec.info.backend, spec.info.precision) == ("mine", backend, "f32")
    assert spec.info.device


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_int8_is_taken_where_it_is_shipped(backend: str, network: Network, tmp_path: Path) -> None:
    other = tiny.write(
        tmp_path,
        tiny.network(outputs={"a": 2, "b": 3}),
        {
            "classes": tiny.CLASSES,
            "heads": [{"output": "b", "channels": tiny.CLASSES}],
        },
        name="other",
    )
    both = replace(network, int8=open_network(other).f32)  # any other network tells which one ran
    with open_engine(both, backend=backend) as engine:
        assert engine.spec.info.precision == "int8"
        scores = engine.infer(tiny.picture()[None]).scores
    assert scores is not None
    np.testing.assert_allclose(scores[0], tiny.said(tiny.picture(), 3, seed=1), atol=1e-4)
    with pytest.raises(NetworkError, match=r"int8.*f32"):
        open_engine(network, backend=backend, precision="int8")


def test_what_it_says_is_held_against_the_classes(backend: str, network: Network) -> None:
    two = replace(network.classes, names=("a", "b"), colours=((0, 0, 0), (1, 1, 1)))
    with pytest.raises(NetworkError, match=r"\(1, 3, 8, 12\); expected \(1, 2, h, w\)"):
        open_engine(replace(network, classes=two), backend=backend)


def test_what_is_no_network_is_refused_in_one_line(backend: str, network: Network) -> None:
    model = tiny.network(outputs={"scores": 3})
    model.graph.node[0].op_type = "NoSuchOperator"
    model.graph.input[0].name = "image"
    model.graph.node[0].input[0] = "image"
    with pytest.raises(NetworkError, match=r"^mine: .* cannot ") as refused:
        open_engine(replace(network, f32=model.SerializeToString()), backend=backend)
    assert "\n" not in str(refused.value)


def says(*outputs: Result) -> Engine:
    """An engine of three classes, one result after the other."""
    spec = EngineSpec((8, 8), Classes(("a", "b", "c"), ((0, 0, 0),) * 3), EngineInfo("mine", "fake", "f32", "none"))
    given = iter(outputs)
    return Engine(spec, lambda _images: next(given))


def test_one_result_for_each_picture() -> None:
    picture = np.zeros((1, 8, 8, 3), np.uint8)
    engine = says(*(Result(scores=np.zeros((n, 3, 4, 4), np.float32)) for n in (5, 0, 1)))
    for number in (5, 0):
        with pytest.raises(NetworkError, match=f"^mine: says {number} things of 1 picture; .* not one mask for every"):
            engine.infer(picture)
    assert engine.infer(picture).scores is not None


def test_a_label_that_is_no_class_is_refused() -> None:
    picture, labels = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8)
    labels[0, :3, 0] = 255, 1, 2
    other = labels.copy()
    other[0, 5, 5] = 3
    engine = says(Result(labels=labels), Result(labels=other))
    assert engine.infer(picture).labels is labels
    with pytest.raises(NetworkError, match=r"^mine: says label 3; its classes are 0 to 2 \(a, b, c\), and 255 is void"):
        engine.infer(picture)


@pytest.mark.parametrize("least", [1, 0])
def test_an_output_for_every_object_is_refused(backend: str, least: int, network: Network) -> None:
    """As many masks as pixels are bright, 28x28 each, and `least` of a black picture."""
    model = tiny.masks(least=least)
    masks = replace(network, f32=model.SerializeToString(), int8=None)
    with pytest.raises(NetworkError, match=r"^mine: (how much it says depends|says \d+ things|.* cannot )") as refused:
        open_engine(masks, backend=backend).infer(np.full((1, *tiny.SIZE, 3), 200, np.uint8))
    assert "\n" not in str(refused.value)


def test_a_failure_of_the_backend_is_mapped() -> None:
    def broken(images: np.ndarray) -> Result:
        raise RuntimeError("Check failed\n at line 3")

    spec = EngineSpec((8, 8), open_network("road").classes, EngineInfo("road", "fake", "f32", "none"))
    with pytest.raises(NetworkError, match=r"^road: fake failed: Check failed at line 3$"):
        Engine(spec, broken, errors=(RuntimeError,)).infer(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("backend", "present", "name"),
    [("auto", ("openvino", "onnxruntime"), "openvino"), ("auto", ("onnxruntime",), "onnxruntime"),
     ("onnxruntime", ("openvino", "onnxruntime"), "onnxruntime"), ("auto", ("tensorrt", "openvino"), "tensorrt"),
     ("auto", ("torch",), "torch")],
)  # fmt: skip
def test_auto_takes_the_first_that_is_installed(backend: str, present: tuple[str, ...], name: str) -> None:
    assert chosen(backend, present=present)[0] == name


def test_what_cannot_be_chosen_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown backend 'tensorflow'; known: auto, tensorrt, openvino"):
        chosen("tensorflow", present=installed())
    with pytest.raises(NetworkError, match="openvino is not installed: pip install openvino"):
        chosen("openvino", present=())
    with pytest.raises(NetworkError, match="pip install openvino"):
        chosen("auto", present=())


def test_the_choice_is_logged(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), open_engine(network):
        pass
    assert [r.message for r in caplog.records if "openvino (the fastest on a CPU)" in r.message]


def test_auto_goes_on_where_tensorrt_has_not_the_precision(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = Target("tensorrt", "simulated 1", "a GPU", ("int8", "fp16", "f32"), "8.9", suffix=".plan")
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "engines"))
    monkeypatch.setattr(target, "_tensorrt", lambda _capability: gpu)
    torch = table.BACKENDS["torch"]
    monkeypatch.setattr(table, "BACKENDS", {"tensorrt": replace(torch, package="numpy"), "torch": torch})
    with open_engine(network, precision="bf16") as engine:
        assert (engine.spec.info.backend, engine.spec.info.precision) == ("torch", "bf16")
    assert "precision 'bf16': tensorrt has int8, fp16, f32 on a GPU of capability 8.9; the next" in caplog.text
    with pytest.raises(NetworkError, match="precision int8: mine has no int8 form yet"):
        open_engine(network, backend="tensorrt", precision="int8")


def test_a_precision_that_there_is_not_is_refused_by_name(network: Network) -> None:
    said = r"^unknown precision 'bogus'; known: auto, int8, fp8, fp16, bf16, f32$"
    for backend in ("auto", "torch"):
        with pytest.raises(ConfigError, match=said):
            open_engine(network, backend=backend, precision="bogus")
    assert set(get_args(Segment.__pydantic_fields__["precision"].annotation)) == {"auto", *PRECISIONS}  # type: ignore[attr-defined]


def test_openvino_takes_bf16_only_where_the_cpu_has_it() -> None:
    assert settled("auto", quantised=False, capabilities=["FP32", "BF16"]) == "bf16"
    assert settled("auto", quantised=False, capabilities=["FP32"]) == "f32"
    assert settled("auto", quantised=True, capabilities=["FP32"]) == "int8"
    with pytest.raises(NetworkError, match="bf16: this CPU does not compute it; here: f32"):
        settled("bf16", quantised=False, capabilities=["FP32"])


def test_opening_an_engine_calls_nobody_and_starts_no_process() -> None:
    watched = ["socket.connect", "socket.getaddrinfo", "os.fork", "subprocess.Popen"]
    program = (
        f"import json, sys\nseen, watched = [], {watched}\n"
        "sys.addaudithook(lambda event, _: seen.append(event) if event in watched else None)\n"
        "from stream_seg.engines.open import open_engine\nfrom stream_seg.network.network import open_network\n"
        "open_engine(open_network('road'), backend='openvino')\nprint(json.dumps([seen, 'torch' in sys.modules]))\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == [[], False]
