"""Compare ways to labels from the shipped ONNX in other runtimes: CPU time of network and labels, on one thread.

`opencv` are the lines of the model card; the pipeline's own way is `pipeline` (`ops.labels`); the others are operators
in the graph. The ways alternate (A B A B). With --data, mIoU of each on a labelled split, in float32.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper
from surroundings import JsonFile, describe_machine, figures_table, print_results, run_command

from stream_seg.datasets.labelled import read_pairs
from stream_seg.datasets.scoring import compute_metrics, confusion_matrix
from stream_seg.network.network import Network, open_network
from stream_seg.network.onnx_builder import OnnxBuilder
from stream_seg.network.shipped import SHIPPED
from stream_seg.ops.labels import resize_labels, upsampled_argmax
from stream_seg.ops.resize import resize_image
from stream_seg.stages.synthetic import Synthetic
from stream_seg.types import Image

Run: TypeAlias = Callable[[Image], NDArray[Any]]
"""Returns the only output of a network for one image, without the axis of the batch."""
Finish: TypeAlias = Callable[[NDArray[Any], tuple[int, int]], NDArray[Any]]
"""Returns labels at a (height, width) for that output."""
WARM_UP_RUNS = 3


class Way(NamedTuple):
    """Operators to add to the graph, a function of builder and input size or None, and the work behind the network."""

    extend: Callable[[OnnxBuilder, tuple[int, int]], str] | None
    finish: Finish


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 50,
    data: Annotated[Path | None, typer.Option(help="A folder with labelled images, as for `stream-seg eval`.")] = None,
    split: Annotated[str, typer.Option(help="Its split.")] = "val",
    json_file: JsonFile = None,
) -> None:
    """Measure the CPU time of each way to labels in OpenVINO and ONNX Runtime, in int8 and float32."""
    network = open_network("road")
    facts: dict[str, Any] = {"machine": describe_machine(), "runs": runs, "cpu_ms": {}, "ratio": {}}
    (frame,) = Synthetic(frames=1)(iter(()))
    image = resize_image(frame.image, network.size)
    for runtime, open_runtime in RUNTIMES.items():
        for precision in ("int8", "f32"):
            times_ms = measure(network, precision, open_runtime, image, runs=runs)
            facts["cpu_ms"][f"{runtime} {precision}"] = times_ms
            facts["ratio"][f"{runtime} {precision}"] = {w: ms / times_ms["scores"] for w, ms in times_ms.items()}
    table = figures_table("network and labels at its input's size", "CPU-ms, x scores alone", *facts["cpu_ms"])
    for way in ("scores", *WAYS):
        cells = (f"{ms[way]:.1f}  {facts['ratio'][name][way]:.2f}" for name, ms in facts["cpu_ms"].items())
        table.add_row(way, *cells)
    tables = [table]
    if data is not None:
        facts["miou"] = score(network, data, split)
        tables.append(figures_table(f"mIoU on {data / split}, %", *facts["miou"]))
        tables[-1].add_row(*(f"{100 * miou:.2f}" for miou in facts["miou"].values()))
    print_results(facts, tables, json_file)


def measure(
    network: Network, precision: str, open_runtime: Callable[[bytes], Run], image: Image, *, runs: int
) -> dict[str, float]:
    """Return the median CPU-ms of the scores, and of the network and the labels in each way."""
    work: dict[str, Callable[[], object]] = {"scores": partial(open_runtime(make_onnx(network, precision)), image)}
    for name, way in WAYS.items():
        run = open_runtime(make_onnx(network, precision, way))
        work[name] = partial(lambda run, finish: finish(run(image), network.size), run, way.finish)
    times_ms: dict[str, list[float]] = {name: [] for name in work}
    for number in range(runs + WARM_UP_RUNS):
        for name, call in work.items():
            began_s = time.process_time()
            call()
            if number >= WARM_UP_RUNS:
                times_ms[name].append(1000 * (time.process_time() - began_s))
    return {name: float(np.median(values)) for name, values in times_ms.items()}


def score(network: Network, data: Path, split: str) -> dict[str, float]:
    """Return the mIoU of each way on a split."""
    runs = {name: open_openvino(make_onnx(network, "f32", way)) for name, way in WAYS.items()}
    pairs, count = read_pairs(data, split, classes=len(network.classes)), len(network.classes)
    matrices: dict[str, Any] = dict.fromkeys(WAYS, 0)
    for image, truth in zip(pairs.images, pairs.labels, strict=True):
        resized = resize_image(image, network.size)
        for name, way in WAYS.items():
            labels = way.finish(runs[name](resized), truth.shape[:2])
            matrices[name] += confusion_matrix(truth, labels, classes=count)
    return {name: float(compute_metrics(matrix, network.classes)["miou"]) for name, matrix in matrices.items()}


def make_onnx(network: Network, precision: str, way: Way | None = None) -> bytes:
    """Return the shipped ONNX of a precision for one image, with the operators of a way."""
    model = onnx.load_from_string(network.int8 if precision == "int8" and network.int8 else network.f32)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    if way is not None and way.extend is not None:
        add = OnnxBuilder("labels", opset=20)
        output = way.extend(add, network.size)
        model.graph.node.extend(add.nodes)
        model.graph.initializer.extend(add.constants)
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.UINT8, None))
    return bytes(model.SerializeToString())


def open_openvino(serialized: bytes) -> Run:
    """Open an ONNX in OpenVINO on one thread."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # it would report to a web service
    import openvino as ov

    core = ov.Core()
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(serialized), "CPU", options).create_infer_request()
    return lambda image: np.asarray(request.infer(image[None], share_inputs=True)[0][0])


def open_onnxruntime(serialized: bytes) -> Run:
    """Open an ONNX in ONNX Runtime on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(None, {"image": image[None]})[0][0])


def read_card() -> Finish:
    """Return the function that the model card of the shipped network defines."""
    code = re.findall(r"^```python\n(.*?)^```$", (SHIPPED / "road.md").read_text(encoding="utf-8"), re.M | re.S)[0]
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    return lambda scores, size: np.asarray(namespace["label_map"](scores, size[::-1]))


def add_small_labels(add: OnnxBuilder, size: tuple[int, int]) -> str:
    """Add the arg-max of the scores."""
    return add("Cast", add("ArgMax", "scores", axis=1, keepdims=0), to=TensorProto.UINT8)


def add_labels(add: OnnxBuilder, size: tuple[int, int], *, channels_last: bool = False) -> str:
    """Add the arg-max of the scores, enlarged to the input's size."""
    full = add("Resize", "scores", "", "", add.constant([1, 11, *size], np.int64), mode="linear")
    if channels_last:
        full = add("Transpose", full, perm=[0, 2, 3, 1])
    return add("Cast", add("ArgMax", full, axis=3 if channels_last else 1, keepdims=0), to=TensorProto.UINT8)


def add_top_class(add: OnnxBuilder, size: tuple[int, int]) -> str:
    """Add the class with the highest of the enlarged scores by TopK."""
    full = add("Resize", "scores", "", "", add.constant([1, 11, *size], np.int64), mode="linear")
    add("TopK", full, add.constant([1], np.int64), axis=1)
    add.nodes[-1].output.append("indices")
    return add.drop_axis(add("Cast", "indices", to=TensorProto.UINT8), 1)


RUNTIMES: Mapping[str, Callable[[bytes], Run]] = {"openvino": open_openvino, "onnxruntime": open_onnxruntime}
WAYS: Mapping[str, Way] = {
    "pipeline": Way(None, upsampled_argmax),
    "opencv": Way(None, read_card()),
    "Resize, ArgMax": Way(add_labels, resize_labels),
    "Resize, Transpose, ArgMax": Way(partial(add_labels, channels_last=True), resize_labels),
    "Resize, TopK": Way(add_top_class, resize_labels),
    "ArgMax": Way(add_small_labels, resize_labels),
}

if __name__ == "__main__":
    run_command(main)
