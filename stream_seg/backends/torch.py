"""torch: the reference that others are held against, and CUDA where TensorRT is missing."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.engine import Engine, EngineSpec, Images, Result, as_result, cheapest, in_batches, one_line
from stream_seg.backends.onnxruntime import cpu_name
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network

if TYPE_CHECKING:
    import torch

PRECISIONS = ("f32", "bf16", "fp16")
RESIZING = (
    ("linear", "half_pixel"),
    ("linear", "pytorch_half_pixel"),
    ("linear", "align_corners"),
    ("nearest", "asymmetric"),
)
"""Mode and coordinates of the resizings that torch's interpolate computes as ONNX defines them."""

BATCH = 8
"""Pictures at once on a GPU."""


def open_engine(
    network: Network,
    *,
    precision: str,
    threads: int,
    output: str | None = None,
    device: str = "auto",
    compiled: bool = False,
) -> Engine:
    """Give `network` to torch, in channels-last order. Raises NetworkError; ImportError.

    `output` is "scores" or "labels"; None takes scores where there are any. `device` is "cpu", "cuda", or "auto". bf16
    and fp16 are autocast: reductions stay float32. `compiled` runs torch.compile, with CUDA graphs on a GPU: opening
    then takes a minute or more. `threads` holds for torch in the whole process.
    """
    import torch

    where = _device(device)
    precision = settled(precision, device=where.type)
    name, graph = cheapest(network.f32, output)
    net = module_of(graph, name=network.name).to(where).to(memory_format=torch.channels_last)
    call = torch.compile(net, mode="reduce-overhead") if compiled else net
    if where.type == "cpu":
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def computed(images: Images) -> NDArray[Any]:
        with _arithmetic(where.type, precision):
            said = call(torch.from_numpy(np.array(images)).to(where))  # a copy: torch warns of read-only arrays
        values: NDArray[Any] = (said.float() if said.is_floating_point() else said).cpu().numpy()
        return np.ascontiguousarray(values)

    most = 1 if where.type == "cpu" else BATCH

    def run(images: Images) -> Result:
        return as_result(name, in_batches(computed, images, most=most))

    try:
        shape = computed(np.zeros((1, *network.size, 3), np.uint8)).shape[1:]
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise NetworkError(f"{network.name}: torch cannot run it: {one_line(error)}") from error
    info = EngineInfo(network.name, "torch", precision, _called(where))
    spec = EngineSpec(network.size, network.classes, info, shapes={name: shape}, batch=most)
    return Engine(spec, run, errors=(RuntimeError,))


def module_of(graph: bytes, *, name: str) -> torch.nn.Module:
    """An ONNX as a torch module, by onnx2pytorch. Raises NetworkError naming an operator that it does not know."""
    import onnx
    from onnx2pytorch import ConvertModel

    model = onnx.load_from_string(graph)
    _refuse_other_resizing(model, name=name)
    # onnx2pytorch's Gather and Slice index with a list, of which torch says at every picture that it will change
    warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Pytorch's interpolate uses no", UserWarning)  # see RESIZING
            module: torch.nn.Module = ConvertModel(model, experimental=True)
    except (NotImplementedError, KeyError, TypeError, ValueError) as error:
        raise NetworkError(f"{name}: torch cannot load it: {one_line(error)}") from error
    return module.eval()


def settled(precision: str, *, device: str) -> str:
    """The precision that is meant by `precision`. Raises NetworkError for one that is not to be had."""
    if precision == "auto":
        return "fp16" if device == "cuda" else "f32"
    possible = PRECISIONS if device == "cuda" else PRECISIONS[:2]  # few CPUs compute in fp16
    if precision not in possible:
        raise NetworkError(f"torch: precision {precision} is not to be had on {device}; here: {', '.join(possible)}")
    return precision


def _refuse_other_resizing(model: Any, *, name: str) -> None:
    """Raise NetworkError for a Resize that torch's interpolate would compute differently."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            said = {a.name: a.s.decode() for a in node.attribute if a.s}
            way = (said.get("mode", "nearest"), said.get("coordinate_transformation_mode", "half_pixel"))
            floor = way[0] != "nearest" or said.get("nearest_mode") == "floor"
            if way not in RESIZING or not floor:
                raise NetworkError(f"{name}: torch has no Resize of mode {' '.join(way)} ({node.name})")


def _arithmetic(device: str, precision: str) -> AbstractContextManager[Any]:
    import torch

    if precision == "f32":
        return nullcontext()
    return torch.autocast(device, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


def _device(device: str) -> torch.device:
    import torch

    has = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda") or (device == "cuda" and not has):
        allowed = "auto, cpu, cuda" if has else "auto, cpu (torch finds no CUDA device)"
        raise NetworkError(f"torch: device {device!r}; here: {allowed}")
    return torch.device("cuda" if has and device != "cpu" else "cpu")


def _called(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
