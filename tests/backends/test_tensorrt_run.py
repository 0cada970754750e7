"""An execution on a simulated GPU: memory, order, graphs. The same on a real one, where there is one (`-m gpu`)."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from stream_seg.backends.engine import cheapest
from stream_seg.backends.tensorrt.backend import lack, open_execution
from stream_seg.backends.tensorrt.build import build
from stream_seg.backends.tensorrt.cuda import Plan, checked, gpu
from stream_seg.backends.tensorrt.run import Execution
from stream_seg.engines.open import open_engine
from stream_seg.network.network import Network, open_network
from tests.support import simulated_cuda as simulated
from tests.support import small_networks as tiny

needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(lack() is not None, reason=f"tensorrt {lack()}")]
SCORES = (3, 8, 12)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return open_network(tiny.write(tmp_path, tiny.network(outputs={"out": 3}), {"classes": tiny.CLASSES}))


def execution(network: Network, cuda: simulated.Cuda, *, most: int = 4) -> Execution:
    plan = simulated.Plan(cheapest(network.f32)[1], cuda, most=most, outputs={"scores": SCORES})
    return Execution(cast(Plan, plan), cuda, outputs=("scores",))


def pictures(count: int, *, seed: int) -> Any:
    return np.stack([tiny.picture(seed=seed + i) for i in range(count)])


def expected(images: Any) -> Any:
    return np.stack([tiny.said(image, 3) for image in images])


def test_every_batch_is_answered_and_from_its_second_run_on_it_is_one_launch(network: Network) -> None:
    cuda = simulated.Cuda()
    run = execution(network, cuda)
    assert (run.batch, run.shapes) == (4, {"scores": SCORES})
    answers = []
    for seed, count in enumerate([1, 4, 1, 1, 4, 2, 2]):
        images = pictures(count, seed=10 * seed)
        answers.append((run.infer(images)["scores"], expected(images)))
    for said, truth in answers:  # an answer outlives the next one
        np.testing.assert_allclose(said, truth, atol=1e-4)
    assert len(cuda.graphs) == 3  # one for each number of pictures
    assert cuda.launched == 4


def test_only_what_belongs_to_the_batch_is_copied(network: Network) -> None:
    cuda = simulated.Cuda()
    run = execution(network, cuda)
    run.infer(pictures(2, seed=0))
    assert cuda.copied == [("there", 2 * 16 * 24 * 3), ("back", 2 * 3 * 8 * 12 * 4)]


def test_what_stays_on_the_gpu_is_not_copied_back(network: Network) -> None:
    cuda = simulated.Cuda()
    run = execution(network, cuda)
    images = pictures(2, seed=5)
    for _ in range(2):  # enqueued, then as a graph
        cuda.copied.clear()
        run.infer(pictures(2, seed=9))
        cuda.copied.clear()
        left = run.on_device(images)["scores"]
        assert [kind for kind, _ in cuda.copied] == ["there"]
        cuda.copied.clear()
        run.again(2)
        assert not cuda.copied
    told = left.__cuda_array_interface__
    assert (told["shape"], told["typestr"]) == ((2, *SCORES), "<f4")
    block = cuda.blocks[told["data"][0]]
    np.testing.assert_allclose(
        np.frombuffer(block, np.float32)[: left.shape[0] * 288].reshape(left.shape), expected(images), atol=1e-4
    )


def test_all_that_it_holds_is_freed_with_it(network: Network) -> None:
    cuda = simulated.Cuda()
    run = execution(network, cuda)
    run.infer(pictures(1, seed=0))
    left = run.on_device(pictures(1, seed=0))["scores"]
    del run
    gc.collect()
    assert cuda.blocks  # an output that somebody holds keeps the memory
    del left
    gc.collect()
    assert not cuda.blocks


def test_too_little_memory_is_said_and_nothing_is_left(network: Network) -> None:
    cuda = simulated.Cuda(memory=5_000)
    with pytest.raises(RuntimeError, match=r"^CUDA: cudaErrorMemoryAllocation \(2\)$"):
        execution(network, cuda)
    gc.collect()
    assert not cuda.blocks


@pytest.mark.skipif(lack() is None, reason="there is a GPU, which these calls would reach")
def test_cuda_takes_the_arguments_that_it_is_given() -> None:
    """Without a driver every call answers with an error; one with wrong arguments raises."""
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
    assert calls.keys() == {name for name in dir(simulated.Cuda) if name.startswith("cuda") and name[4].isupper()} - {
        "cudaStreamNonBlocking", "cudaMemcpyKind", "cudaStreamCaptureMode"
    }  # fmt: skip
    for name, arguments in calls.items():
        with pytest.raises(RuntimeError, match=r"^CUDA: cudaError"):
            checked(getattr(cuda, name)(*arguments))


@pytest.mark.parametrize("precision", [pytest.param(p, marks=needs_gpu) for p in ("f32", "fp16", "int8")])
def test_the_road_network_on_a_gpu(precision: str) -> None:
    road = open_network("road")
    images = np.random.default_rng(0).integers(0, 256, (11, *road.size, 3), dtype=np.uint8)
    with open_engine(road, backend="tensorrt", precision=precision) as engine:
        said = engine.infer(images).scores
    with open_engine(road, backend="onnxruntime", precision="f32") as engine:
        truth = engine.infer(images).scores
    assert said is not None
    assert truth is not None
    assert (said.argmax(1) == truth.argmax(1)).mean() >= {"f32": 0.999, "fp16": 0.99, "int8": 0.9}[precision]


@pytest.mark.gpu
@pytest.mark.skipif(lack() is not None, reason=f"tensorrt {lack()}")
def test_torch_takes_what_stays_on_a_gpu(network: Network, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    _, capability = gpu()
    assert capability
    name, graph = cheapest(network.f32)
    plan = build(graph, precision="f32", size=network.size, batch=(1, 4), name="mine")
    run = open_execution(plan, output=name, runtime_cache=tmp_path / "kernels", name="mine")
    images = pictures(3, seed=1)
    for _ in range(2):
        left = torch.as_tensor(run.on_device(images)[name], device="cuda")
        np.testing.assert_allclose(left.cpu().numpy(), expected(images), atol=1e-3)
