"""Plans at work on a simulated GPU: memory, order, graphs. With `-m gpu` also on a real one."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from stream_seg.backends.choose import find_missing
from stream_seg.backends.engine import prune_onnx
from stream_seg.backends.tensorrt.api import Plan, check_cuda
from stream_seg.backends.tensorrt.run import Execution
from stream_seg.engines.open import open_engine
from stream_seg.network.network import Network, open_network
from tests.support import simulated_cuda, small_networks

NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_missing("tensorrt") is not None, reason=f"tensorrt: {find_missing('tensorrt')}"),
]
SCORES = (3, 8, 12)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    model = small_networks.make_model(outputs={"out": 3})
    return open_network(small_networks.write_network(tmp_path, model, {"classes": small_networks.CLASSES}))


def make_execution(network: Network, cuda: simulated_cuda.Cuda, *, most: int = 4) -> Execution:
    graph = prune_onnx(network.f32)[1]
    plan = simulated_cuda.Plan(graph, cuda, most=most, outputs={"scores": SCORES})
    return Execution(cast(Plan, plan), cuda, output="scores")


def make_images(count: int, *, seed: int) -> Any:
    return np.stack([small_networks.make_image(seed=seed + i) for i in range(count)])


def expected_scores(images: Any) -> Any:
    return np.stack([small_networks.expected_scores(image, 3) for image in images])


def test_a_batch_size_is_one_graph_launch_from_its_second_run_on(network: Network) -> None:
    cuda = simulated_cuda.Cuda()
    execution = make_execution(network, cuda)
    assert execution.batch == 4
    results = []
    for seed, count in enumerate([1, 4, 1, 1, 4, 2, 2]):
        images = make_images(count, seed=10 * seed)
        results.append((execution.infer(images), expected_scores(images)))
    for scores, expected in results:  # a result outlives the next one
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert len(cuda.graphs) == 3  # one for each batch size
    assert cuda.launches == 4


def test_only_the_images_of_the_batch_are_copied(network: Network) -> None:
    cuda = simulated_cuda.Cuda()
    make_execution(network, cuda).infer(make_images(2, seed=0))
    assert cuda.copies == [("upload", 2 * 16 * 24 * 3), ("download", 2 * 3 * 8 * 12 * 4)]


def test_memory_is_freed_with_the_execution(network: Network) -> None:
    cuda = simulated_cuda.Cuda()
    execution = make_execution(network, cuda)
    execution.infer(make_images(1, seed=0))
    assert cuda.blocks
    del execution
    gc.collect()
    assert not cuda.blocks


def test_too_little_memory_is_an_error_and_leaves_nothing(network: Network) -> None:
    cuda = simulated_cuda.Cuda(memory=5_000)
    with pytest.raises(RuntimeError, match=r"^CUDA: cudaErrorMemoryAllocation \(2\)$"):
        make_execution(network, cuda)
    gc.collect()
    assert not cuda.blocks


@pytest.mark.skipif(find_missing("tensorrt") is None, reason="these calls would reach the GPU of this machine")
def test_cuda_accepts_the_arguments_of_every_call() -> None:
    """Without a driver every call returns an error; one with wrong arguments raises another."""
    cuda = pytest.importorskip("cuda.bindings.runtime")
    mode, kind = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
    graph, executable = cuda.cudaGraph_t(0), cuda.cudaGraphExec_t(0)
    calls: dict[str, tuple[Any, ...]] = {
        "cudaStreamCreateWithFlags": (cuda.cudaStreamNonBlocking,), "cudaMallocHost": (8,), "cudaMalloc": (8,),
        "cudaMemcpyAsync": (1, 2, 0, kind, 3), "cudaStreamSynchronize": (3,), "cudaStreamBeginCapture": (3, mode),
        "cudaStreamEndCapture": (3,), "cudaGraphInstantiate": (graph, 0), "cudaGraphLaunch": (executable, 3),
        "cudaGraphDestroy": (graph,), "cudaGraphExecDestroy": (executable,), "cudaFree": (0,), "cudaFreeHost": (0,),
        "cudaStreamDestroy": (0,),
    }  # fmt: skip
    names = {name for name in dir(simulated_cuda.Cuda) if name.startswith("cuda") and name[4].isupper()}
    assert calls.keys() == names - {"cudaStreamNonBlocking", "cudaMemcpyKind", "cudaStreamCaptureMode"}
    for name, arguments in calls.items():
        with pytest.raises(RuntimeError, match=r"^CUDA: cudaError"):
            check_cuda(getattr(cuda, name)(*arguments))


@pytest.mark.parametrize("precision", [pytest.param(p, marks=NEEDS_GPU) for p in ("f32", "fp16", "int8")])
def test_the_road_network_on_a_gpu(precision: str) -> None:
    road = open_network("road")
    images = np.random.default_rng(0).integers(0, 256, (11, *road.size, 3), dtype=np.uint8)
    with open_engine(road, backend="tensorrt", precision=precision) as engine:
        scores = engine.infer(images).scores
    with open_engine(road, backend="onnxruntime", precision="f32") as engine:
        expected = engine.infer(images).scores
    assert scores is not None
    assert expected is not None
    least = {"f32": 0.999, "fp16": 0.99, "int8": 0.9}[precision]
    assert (scores.argmax(1) == expected.argmax(1)).mean() >= least
