"""The shipped road network, opened by one backend on one device, for `gpu_session.py`.

No module of stream_seg is imported before a function needs it: a machine may have torch and numpy alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # stream_seg need not be installed
SHIPPED = ROOT / "stream_seg" / "shipped"
ABOUT: dict[str, Any] = json.loads((SHIPPED / "road.json").read_text(encoding="utf-8"))
SIZE: tuple[int, int] = tuple(ABOUT["size"])
"""(height, width) of the network's input."""
BATCH = 8

Pixels: TypeAlias = NDArray[np.uint8]


class Runner(NamedTuple):
    """An open network.

    `infer` maps uint8 images (N, H, W, 3), BGR, in host memory to uint8 labels (N, H, W) there; N is 1 or BATCH.
    `recompute(N)` infers N images that are on the device, without copies, and waits for the end; None where the backend
    always copies.
    """

    infer: Callable[[Pixels], Pixels]
    recompute: Callable[[int], object] | None
    versions: dict[str, str]


def read_onnx(file: str) -> bytes:
    """Return a shipped ONNX with labels at the size of the image as its only output.

    A GPU computes them in no time, and they are a tenth of the bytes of the scores.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(SHIPPED / file)
    graph = model.graph
    height, width = (dim.dim_value for dim in graph.output.pop().type.tensor_type.shape.dim[2:])
    scales = np.array([1, 1, SIZE[0] / height, SIZE[1] / width], np.float32)
    graph.initializer.append(numpy_helper.from_array(scales, "scales"))
    graph.node.append(helper.make_node("Resize", ["scores", "", "scales"], ["enlarged"], mode="linear"))
    graph.node.append(helper.make_node("ArgMax", ["enlarged"], ["indices"], axis=1, keepdims=0))
    graph.node.append(helper.make_node("Cast", ["indices"], ["labels"], to=onnx.TensorProto.UINT8))
    graph.output.append(helper.make_tensor_value_info("labels", onnx.TensorProto.UINT8, ["batch", *SIZE]))
    return bytes(model.SerializeToString())


def open_openvino(device: str, *, precision: str) -> Runner:
    """Open the shipped ONNX with OpenVINO; `device` is "cpu"."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report to a web service
    import openvino as ov

    core = ov.Core()
    model = core.read_model(read_onnx("road.onnx"))
    network = core.compile_model(model, device.upper(), {"INFERENCE_PRECISION_HINT": precision})
    return Runner(lambda images: network(images)["labels"].copy(), None, {"openvino": ov.__version__})


def open_onnxruntime(device: str, *, precision: str) -> Runner:
    """Open the shipped ONNX with ONNX Runtime's provider for `device`; `recompute` binds input and output there."""
    import onnxruntime as ort

    provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[device]
    if provider not in ort.get_available_providers():
        raise RuntimeError(f"onnxruntime {ort.__version__} has no {provider}; pip install onnxruntime-gpu")
    if device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA and cuDNN of the packages nvidia-*
    graph = read_onnx("road.onnx")
    if precision == "fp16":
        from stream_seg.backends.tensorrt.precision import convert_precision

        graph = convert_precision(graph, precision=precision, name="road")
    session = ort.InferenceSession(graph, providers=[provider])
    if session.get_providers()[0] != provider:  # it goes on with the CPU where the provider does not load
        raise RuntimeError(f"onnxruntime {ort.__version__}: {provider} does not load on this machine")
    latest: dict[int, Pixels] = {}
    bindings: dict[int, Any] = {}

    def infer(images: Pixels) -> Pixels:
        latest[len(images)] = images
        labels: Pixels = session.run(["labels"], {"image": images})[0]
        return labels

    def recompute(count: int) -> None:
        if count not in bindings:
            images = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(latest[count]), device, 0)
            bindings[count] = session.io_binding()
            bindings[count].bind_ortvalue_input("image", images)
            bindings[count].bind_output("labels", device, 0)
        session.run_with_iobinding(bindings[count])
        bindings[count].synchronize_outputs()

    return Runner(infer, recompute, {"onnxruntime": ort.__version__})


def open_torch(device: str, *, precision: str, mode: str = "eager") -> Runner:
    """Open the shipped weights with torch. `mode`: eager, autocast, graph (a CUDA graph) or compiled.

    From uint8 image to uint8 labels everything runs on the device, in channels-last order; host buffers are pinned.
    cuDNN measures which kernels it takes, and may compute in TF32 where the precision is f32.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # its worker processes would outlive this one
    import torch
    from torch.nn.functional import interpolate

    from stream_seg.zoo.road import RoadNet

    torch.backends.cudnn.benchmark = True
    dtype = torch.float16 if precision == "fp16" and mode != "autocast" else torch.float32
    net = RoadNet(len(ABOUT["classes"]))
    net.load_state_dict(read_safetensors(SHIPPED / "road.safetensors"))
    net.eval().to(device, dtype).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(ABOUT[key], device=device).reshape(1, 3, 1, 1) for key in ("mean_bgr", "std_bgr"))
    gain, offset = (1 / (255 * std)).to(dtype), (-mean / std).to(dtype)
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None

    def label(images: Tensor) -> Tensor:
        with torch.autocast(device, torch.float16, enabled=mode == "autocast"):
            scores = net(images.permute(0, 3, 1, 2).to(dtype) * gain + offset)
            return interpolate(scores, size=SIZE, mode="bilinear").argmax(1).to(torch.uint8)

    compiled = torch.compile(label, mode="reduce-overhead", dynamic=False) if mode == "compiled" else label

    @torch.inference_mode()
    def prepare(count: int) -> tuple[Callable[[Pixels], Pixels], Callable[[], None]]:
        shape, pinned = (count, *SIZE), device == "cuda"
        source = torch.zeros((*shape, 3), dtype=torch.uint8, pin_memory=pinned)
        target = torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned)
        images = source.to(device)
        call = partial(compiled, images)
        if mode == "graph":
            call = capture(call)

        @torch.inference_mode()
        def infer(pixels: Pixels) -> Pixels:
            source.copy_(torch.from_numpy(np.require(pixels, requirements="W")))
            images.copy_(source, non_blocking=True)
            target.copy_(call(), non_blocking=True)
            wait()
            return target.numpy().copy()

        @torch.inference_mode()
        def recompute() -> None:
            call()
            wait()

        return infer, recompute

    slots = {count: prepare(count) for count in (1, BATCH)}
    versions = {
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }
    return Runner(lambda images: slots[len(images)][0](images), lambda count: slots[count][1](), versions)


def capture(call: Callable[[], Tensor]) -> Any:
    """Return a function that replays `call` as a CUDA graph; its result is the same tensor each time."""
    import torch

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # cuDNN measures its kernels and torch allocates, neither of which can be captured
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        labels = call()

    def replay() -> Tensor:
        graph.replay()
        return labels

    return replay


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, by name, without the package."""
    import torch

    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    dtypes = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64}
    tensors: dict[str, Tensor] = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            content = bytearray(data[start + first : start + end])
            tensors[name] = torch.frombuffer(content, dtype=dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def open_tensorrt(device: str, *, precision: str) -> Runner:
    """Build a plan of the shipped ONNX for this GPU with `tensorrt` or `tensorrt_rtx`, and open it."""
    from stream_seg.backends.tensorrt.api import import_tensorrt

    trt = import_tensorrt()
    from cuda.bindings import runtime

    from stream_seg.backends.tensorrt.api import Plan
    from stream_seg.backends.tensorrt.backend import build_plan
    from stream_seg.backends.tensorrt.run import Execution

    class WithoutCopies(Execution):
        """The network alone, on the images that are on the GPU."""

        def _copy(self, *_: object) -> None:
            pass

    graph = read_onnx("road_int8.onnx" if precision in ("int8", "fp8") else "road.onnx")
    plan = build_plan(graph, precision=precision, batch=BATCH, name="road")
    whole, alone = (kind(Plan(plan), runtime, output="labels") for kind in (Execution, WithoutCopies))
    return Runner(whole.infer, alone._run, {trt.__name__: trt.__version__})


def open_engine(device: str, *, backend: str, precision: str) -> Runner:
    """Open the network as `stream-seg run` does with `backend: torch` or `backend: onnxruntime`, for its labels."""
    from stream_seg.network.network import open_network

    network = replace(open_network("road"), f32=read_onnx("road.onnx"))
    engine = import_module(f"stream_seg.backends.{backend}").create_engine(network, precision=precision, threads=1)
    info = engine.spec.info
    return Runner(lambda images: engine.infer(images).labels, None, {"backend": f"{info.backend} on {info.device}"})
