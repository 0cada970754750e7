"""Quantized networks in a form that OpenVINO computes right, where it can.

OpenVINO's CPU plugin (2026.4) computes a convolution near a Concat wrongly if the joined tensors are int8, whose
negative values it cuts off, or share their scale but not their zero point: a third of the result is lost. uint8 with a
zero point that is greater by 128 stands for the same values, and a scale that is greater by its last bit is another
one. Neither takes more time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, numpy_helper

from stream_seg.errors import NetworkError

COMPUTES = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Shape"})
"""Operators whose output is not quantized."""


def correct_quantized(serialized: bytes, *, name: str) -> bytes:
    """Return an ONNX that OpenVINO computes right: one that joins tensors has no int8 activations, and no equal scales
    for different zero points. Raises NetworkError for QLinearConv with a scale for each channel, computed wrongly too.
    """
    model = onnx.load_from_string(serialized)
    graph = model.graph
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    if any(node.op_type == "QLinearConv" and sizes.get(node.input[4]) != 1 for node in graph.node):
        fault = "computes QLinearConv with a scale for each channel wrongly"
        raise NetworkError(f"{name}: OpenVINO {fault}; quantize it in the format QDQ")
    producers = {name: node for node in graph.node for name in node.output}
    if not any(_joins_quantized(node, producers) for node in graph.node if node.op_type == "Concat"):
        return serialized
    readers = defaultdict[str, list[NodeProto]](list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if len(tensor.dims) < 2}
    zeros: dict[float, Any] = {}
    count = len(graph.initializer)
    for quantize in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        nodes = [quantize, *readers[quantize.output[0]]]
        names = list(quantize.input[1:])
        if len(names) < 2 or not constants.keys() >= set(names) or any(list(n.input[1:]) != names for n in nodes):
            continue  # computed, or read by other operators than a DequantizeLinear
        scale, zero = (constants[name] for name in names)
        if zero.dtype == np.int8:
            zero = (zero.astype(np.int16) + 128).astype(np.uint8)
            _replace(graph, nodes, 2, zero)
        own = scale
        while scale.size == 1 and zeros.setdefault(float(own), zero.tolist()) != zero.tolist():
            own = np.nextafter(own, np.asarray(np.inf, own.dtype))
        if own is not scale:
            _replace(graph, nodes, 1, own)
    if len(graph.initializer) == count:
        return serialized
    del graph.value_info[:]  # lists the old types
    return bytes(model.SerializeToString())


def _joins_quantized(concat: NodeProto, producers: Mapping[str, NodeProto]) -> bool:
    """Return True if a quantized tensor reaches a Concat, also through operators that only move or limit values."""
    waiting, visited = list(concat.input), set[str]()
    while waiting:
        name = waiting.pop()
        node = producers.get(name)
        if node is None or name in visited or node.op_type in COMPUTES:
            continue
        if node.op_type == "DequantizeLinear":
            return True
        visited.add(name)
        waiting.extend(node.input)
    return False


def _replace(graph: GraphProto, nodes: list[NodeProto], index: int, value: NDArray[Any]) -> None:
    """Replace an input of a quantization's operators by a constant."""
    name = f"{nodes[0].output[0]}/{index}/{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for node in nodes:
        node.input[index] = name
