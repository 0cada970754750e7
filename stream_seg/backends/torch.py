"""torch: the reference that other backends are compared with, and a GPU backend where TensorRT is missing."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.cpu import cpu_name
from stream_seg.backends.engine import Device, Engine, Images, make_engine, prune_onnx, summarize_error
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network

if TYPE_CHECKING:
    import torch

RESIZE_MODES = ("linear half_pixel", "linear pytorch_half_pixel", "linear align_corners", "nearest asymmetric")
"""Mode and coordinate transformation of the Resize operators that torch's interpolate computes as ONNX defines them."""

BATCH = 8
"""Images computed at once on a GPU."""


def find_device() -> Device:
    """Return the CUDA device, or the CPU where there is none. Raises ImportError."""
    import torch

    if torch.cuda.is_available():
        return Device(torch.cuda.get_device_name(), ("fp16", "bf16", "f32"), is_gpu=True)
    return Device(cpu_name(), ("f32",), on_request=("bf16",))  # few CPUs compute in fp16


def create_engine(network: Network, *, precision: str, threads: int, requests: int = 1) -> Engine:
    """Load `network` into torch, on the device of `find_device`. Raises NetworkError; ImportError.

    bf16 and fp16 are autocast: reductions stay float32. Tensors are channels-last. On a CPU `threads` applies to torch
    in the whole process. `requests` has no effect: the engine runs one call at a time.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    output, graph = prune_onnx(network.f32)
    module, fixed = _load_module(graph, name=network.name)
    module = module.to(device).to(memory_format=torch.channels_last)
    if device == "cpu":
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def compute(images: Images) -> NDArray[Any]:
        with torch.autocast(device, dtype, enabled=dtype is not None):
            result = module(torch.from_numpy(np.array(images)).to(device))  # a copy: torch warns of read-only arrays
        values: NDArray[Any] = (result.float() if result.is_floating_point() else result).cpu().numpy()
        return np.ascontiguousarray(values)

    try:
        compute(np.zeros((fixed or 1, *network.size, 3), np.uint8))
    except (RuntimeError, NotImplementedError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise NetworkError(f"{network.name}: torch cannot run it: {summarize_error(error)}") from error
    info = EngineInfo(network.name, "torch", precision, find_device().name)
    batch = fixed or (1 if device == "cpu" else BATCH)
    return make_engine(network, output, compute, info=info, batch=batch, least=fixed or 1)


def _load_module(graph: bytes, *, name: str) -> tuple[torch.nn.Module, int]:
    """Convert an ONNX into a torch module with onnx2pytorch. Return it and its fixed batch, 0 for an open one.

    Raises NetworkError naming an unsupported operator.
    """
    import onnx
    from onnx2pytorch import ConvertModel

    model = onnx.load_from_string(graph)
    _check_operators(model, name=name)
    # onnx2pytorch's Gather and Slice index with a list, which torch warns of at every image
    warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Pytorch's interpolate uses no", UserWarning)  # see RESIZE_MODES
            module: torch.nn.Module = ConvertModel(model, experimental=True)
    except (NotImplementedError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise NetworkError(f"{name}: torch cannot load it: {summarize_error(error)}") from error
    return module.eval(), model.graph.input[0].type.tensor_type.shape.dim[0].dim_value


def _check_operators(model: Any, *, name: str) -> None:
    """Raise NetworkError for quantization, and for a Resize that torch's interpolate would compute differently."""
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise NetworkError(f"{name}: torch has no quantized operators ({node.op_type} {node.name})")
        if node.op_type == "Resize":
            attributes = {a.name: a.s.decode() for a in node.attribute if a.s}
            mode = attributes.get("mode", "nearest")
            key = f"{mode} {attributes.get('coordinate_transformation_mode', 'half_pixel')}"
            rounds_down = mode != "nearest" or attributes.get("nearest_mode") == "floor"
            if key not in RESIZE_MODES or not rounds_down:
                raise NetworkError(f"{name}: torch has no Resize of mode {key} ({node.name})")
