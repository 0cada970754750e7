"""The choice of backend, device and precision, and a backend that a test registers."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stream_seg.backends.choose import (
    available_backends,
    find_target,
    open_backend,
    pick_backend,
    resolve_precision,
)
from stream_seg.backends.engine import Device, Engine, EngineSpec, Images, Result
from stream_seg.backends.onnxruntime import find_device
from stream_seg.backends.registry import BACKENDS, Backend, backend_names, precision_names
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.installation import install_hint
from stream_seg.network.network import Network, open_network
from tests.support import small_networks


@pytest.fixture
def network(tmp_path: Path) -> Network:
    model = small_networks.make_model(outputs={"out": 3})
    return open_network(small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES}))


@pytest.mark.parametrize(
    ("backend", "available", "picked", "reason"),
    [
        ("auto", ("openvino", "onnxruntime"), "openvino", "the fastest on a CPU"),
        ("auto", ("onnxruntime",), "onnxruntime", "openvino not installed"),
        ("onnxruntime", ("openvino", "onnxruntime"), "onnxruntime", "as requested"),
        ("auto", ("tensorrt", "openvino"), "tensorrt", "the fastest on a GPU"),
        ("auto", ("torch",), "torch", "openvino and onnxruntime not installed"),
        ("cpu", ("tensorrt", "openvino"), "openvino", "the fastest on a CPU"),
        ("cpu", ("tensorrt", "onnxruntime"), "onnxruntime", "openvino not installed"),
        ("gpu", ("tensorrt", "openvino"), "tensorrt", "the fastest on a GPU"),
    ],
)
def test_auto_picks_the_first_available(backend: str, available: tuple[str, ...], picked: str, reason: str) -> None:
    assert pick_backend(backend, available=available) == (picked, reason)


def test_unknown_and_missing_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"unknown backend 'cuda' \(known: auto, cpu, gpu, tensorrt, openvino, "):
        pick_backend("cuda", available=available_backends())
    with pytest.raises(NetworkError, match=re.escape(f"no backend is installed: {install_hint('openvino')}")):
        pick_backend("auto", available=())
    monkeypatch.setitem(BACKENDS, "openvino", replace(BACKENDS["openvino"], packages=("no_such_package",)))
    hint = re.escape(install_hint("openvino"))
    with pytest.raises(NetworkError, match=f"backend openvino: not installed: {hint}"):
        pick_backend("openvino", available=available_backends())
    monkeypatch.setitem(BACKENDS, "tensorrt", replace(BACKENDS["tensorrt"], packages=("no_such_package",)))
    with pytest.raises(NetworkError, match=r"backend gpu: not installed: .*\[tensorrt\]'"):
        pick_backend("gpu", available=("openvino",))


def test_a_group_tries_its_own_backends_only(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Device:
        raise ImportError("no such file")

    gpu = replace(BACKENDS["openvino"], find_device=fail, needs_gpu=True)
    monkeypatch.setitem(BACKENDS, "tensorrt", gpu)
    with pytest.raises(NetworkError, match="backend tensorrt does not load"):  # no CPU instead
        open_engine(network, backend="gpu")
    with open_engine(network, backend="cpu") as engine:
        assert engine.spec.info.backend == "openvino"


def test_the_choice_is_logged(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), open_engine(network):
        pass
    assert [r.message for r in caplog.records if "openvino (the fastest on a CPU)" in r.message]


def test_auto_continues_where_tensorrt_lacks_the_precision(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = Device("a GPU", ("int8", "fp16", "f32"), compute_capability="8.9")
    monkeypatch.setenv("STREAM_SEG_CACHE", str(tmp_path / "engines"))
    simulated = replace(BACKENDS["openvino"], find_device=lambda: gpu, compiler=BACKENDS["tensorrt"].compiler)
    monkeypatch.setitem(BACKENDS, "tensorrt", simulated)
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(BACKENDS, name, replace(BACKENDS[name], packages=("no_such_package",)))
    with open_engine(network, precision="bf16") as engine:
        assert (engine.spec.info.backend, engine.spec.info.precision) == ("torch", "bf16")
    assert "precision 'bf16': tensorrt on a GPU of capability 8.9 offers int8, fp16, f32; trying the" in caplog.text
    with pytest.raises(NetworkError, match="precision int8: mine has no int8 form"):
        open_engine(network, backend="tensorrt", precision="int8")


def test_auto_continues_where_a_backend_does_not_load(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Device:
        raise ImportError("libopenvino.so: no such file")

    monkeypatch.setitem(BACKENDS, "openvino", replace(BACKENDS["openvino"], find_device=fail))
    with caplog.at_level(logging.INFO), open_engine(network) as engine:
        assert engine.spec.info.backend == "onnxruntime"
    messages = [record.message for record in caplog.records]
    assert f"openvino does not load (libopenvino.so: no such file): {install_hint('openvino')}" in messages[0]
    assert "onnxruntime (without openvino)" in messages[1]
    with pytest.raises(NetworkError, match="does not load"):
        open_engine(network, backend="openvino")


def test_an_unknown_precision_is_refused_with_the_known_ones(network: Network) -> None:
    message = r"^unknown precision 'bogus' \(known: auto, int8, fp8, fp16, bf16, f32\)$"
    for backend in ("auto", "torch"):
        with pytest.raises(ConfigError, match=message):
            open_engine(network, backend=backend, precision="bogus")


def test_the_precision_depends_on_device_and_network() -> None:
    device = Device("a CPU", ("int8", "bf16", "f32"), on_request=("fp16",))
    assert resolve_precision("auto", device, quantized=True, backend="x") == "int8"
    assert resolve_precision("auto", device, quantized=False, backend="x") == "bf16"
    assert resolve_precision("fp16", device, quantized=False, backend="x") == "fp16"
    with pytest.raises(NetworkError, match=r"^x: precision fp8 is not available on a CPU; available: bf16, f32, fp16$"):
        resolve_precision("fp8", device, quantized=False, backend="x")
    with pytest.raises(NetworkError, match=r"^x: precision int8 needs the network's int8 form; available: bf16"):
        resolve_precision("int8", device, quantized=False, backend="x")


def test_the_device_of_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = ["CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    assert find_device().precisions == ("int8", "f32")
    providers.insert(0, "CUDAExecutionProvider")
    assert find_device() == Device("cuda", ("int8", "fp16", "f32"), is_gpu=True)


def test_only_a_compiler_builds_for_another_gpu() -> None:
    with pytest.raises(ConfigError, match=r"compute capability 8\.9: openvino only builds for this machine"):
        find_target("openvino", "8.9")


def test_a_registered_backend_is_available(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    def create_engine(network: Network, *, precision: str, threads: int, requests: int) -> Engine:
        def label(images: Images) -> Result:
            return Result(labels=np.ones(images.shape[:3], np.uint8))

        info = EngineInfo(network.name, "constant", precision, "nowhere")
        return Engine(EngineSpec(network.size, network.classes, info), label)

    def find_device() -> Device:
        return Device("nowhere", ("int4", "f32"))

    entry = Backend("Constant", ("numpy",), ("numpy",), ("int4", "f32"), find_device, create_engine)
    monkeypatch.setitem(BACKENDS, "constant", entry)
    assert backend_names()[-1] == available_backends()[-1] == "constant"
    assert precision_names() == ("auto", "int4", "int8", "fp8", "fp16", "bf16", "f32")
    with open_engine(network, backend="constant") as engine:
        assert engine.spec.info.precision == "int4"
        assert engine.infer(small_networks.make_image()[None]).labels.all()  # type: ignore[union-attr]
    with open_backend(network, "constant", precision="f32") as engine:
        assert engine.spec.info.precision == "f32"
