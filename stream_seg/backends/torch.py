"""torch: the reference that other backends are compared with, and a GPU backend where TensorRT is missing."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.device import Device, cpu_name
from stream_seg.backends.engine import Engine, EngineSpec, Images, make_run, prune_to_output, summarize_error
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network

if TYPE_CHECKING:
    import torch

RESIZE_MODES = (
    ("linear", "half_pixel"),
    ("linear", "pytorch_half_pixel"),
    ("linear", "align_corners"),
    ("nearest", "asymmetric"),
)
"""Mode and coordinate transformation of the Resize operators that torch's interpolate computes as ONNX defines them."""

BATCH = 8
"""Images computed at once on a GPU."""


def find_device() -> Device:
    """Return the CUDA device, or the CPU where there is none. Raises ImportError."""
    device = _select_device("auto")
    if device.type == "cuda":
        return Device(_device_name(device), ("fp16", "bf16", "f32"))
    return Device(_device_name(device), ("f32",), on_request=("bf16",))  # few CPUs compute in fp16


def create_engine(
    network: Network, *, precision: str, threads: int, output: str | None = None, device: str = "auto"
) -> Engine:
    """Load `network` into torch for `device`: "cpu", "cuda" or "auto". Raises NetworkError; ImportError.

    `output` is "scores" or "labels", by default scores if there are any. bf16 and fp16 are autocast: reductions stay
    float32. Tensors are channels-last. On a CPU `threads` applies to torch in the whole process.
    """
    import torch

    place = _select_device(device)
    name, graph = prune_to_output(network.f32, output)
    module = load_module(graph, name=network.name).to(place).to(memory_format=torch.channels_last)
    if place.type == "cpu":
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def compute(images: Images) -> NDArray[Any]:
        with _autocast(place.type, precision):
            result = module(torch.from_numpy(np.array(images)).to(place))  # a copy: torch warns of read-only arrays
        values: NDArray[Any] = (result.float() if result.is_floating_point() else result).cpu().numpy()
        return np.ascontiguousarray(values)

    batch = 1 if place.type == "cpu" else BATCH
    try:
        shape = compute(np.zeros((1, *network.size, 3), np.uint8)).shape[1:]
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise NetworkError(f"{network.name}: torch cannot run it: {summarize_error(error)}") from error
    info = EngineInfo(network.name, "torch", precision, _device_name(place))
    spec = EngineSpec(network.size, network.classes, info, shapes={name: shape}, batch=batch)
    return Engine(spec, make_run(name, compute, batch=batch), errors=(RuntimeError,))


def load_module(graph: bytes, *, name: str) -> torch.nn.Module:
    """Convert an ONNX into a torch module with onnx2pytorch. Raises NetworkError naming an unsupported operator."""
    import onnx
    from onnx2pytorch import ConvertModel

    model = onnx.load_from_string(graph)
    _check_resizes(model, name=name)
    # onnx2pytorch's Gather and Slice index with a list, which torch warns of at every image
    warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Pytorch's interpolate uses no", UserWarning)  # see RESIZE_MODES
            module: torch.nn.Module = ConvertModel(model, experimental=True)
    except (NotImplementedError, KeyError, TypeError, ValueError) as error:
        raise NetworkError(f"{name}: torch cannot load it: {summarize_error(error)}") from error
    return module.eval()


def _check_resizes(model: Any, *, name: str) -> None:
    """Raise NetworkError for a Resize that torch's interpolate would compute differently."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            attributes = {a.name: a.s.decode() for a in node.attribute if a.s}
            mode = attributes.get("mode", "nearest")
            key = (mode, attributes.get("coordinate_transformation_mode", "half_pixel"))
            rounds_down = mode != "nearest" or attributes.get("nearest_mode") == "floor"
            if key not in RESIZE_MODES or not rounds_down:
                raise NetworkError(f"{name}: torch has no Resize of mode {' '.join(key)} ({node.name})")


def _autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    import torch

    if precision == "f32":
        return nullcontext()
    return torch.autocast(device, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


def _select_device(device: str) -> torch.device:
    import torch

    available = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not available):
        allowed = "auto, cpu, cuda" if available else "auto, cpu (torch finds no CUDA device)"
        raise NetworkError(f"torch: device {device!r} is not available; available: {allowed}")
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
