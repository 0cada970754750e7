"""The figures of `gpu_session.py`: its images, labels against the CPU's, times with and without copies, streams.

A call is timed by the host's wall clock, after warm-up calls, from images in host memory to labels in host memory
(`with_copies`), or on images that are on the GPU already (`without_copies`). Every call waits for the GPU
(torch.cuda.synchronize; the streams of ONNX Runtime and TensorRT alike) before the clock is read, so that no two calls
overlap. The two take turns, ROUNDS times.

`streams_1080p`: threads reduce 1080p frames with OpenCV, the main thread infers them in batches of BATCH with copies.
`capacity_frames_per_s` is unpaced; `streams` is the largest number tried of streams of RATE frames/s for which 99 % of
the frame intervals end with all of their frames done. Decoding is excluded.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from gpu_backends import BATCH, SIZE, Pixels, Runner, open_onnxruntime, open_openvino, open_torch

FRAMES, ROUNDS, RATE = 8, 5, 30
SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""The numbers of streams to try, as shares of the unpaced capacity."""

Send: TypeAlias = Callable[[str, Any], None]
"""Takes a figure's name and value; the value {"not_run": REASON} is for a figure that could not be measured."""


class Job(NamedTuple):
    """The settings of a part: `seconds` for each figure; `folder` holds the images and the CPU's labels."""

    device: str
    seconds: float
    folder: Path


def draw_frames(send: Send, job: Job) -> None:
    """Save 1080p frames of a drawn drive, and the same at the network's size; noise where OpenCV is missing."""
    try:
        from stream_seg.ops.resize import resize_image
        from stream_seg.synth import render
    except ImportError as error:
        noise = np.random.default_rng(7).integers(0, 256, (FRAMES, SIZE[0] // 32, SIZE[1] // 32, 3), np.uint8)
        images = noise.repeat(32, axis=1).repeat(32, axis=2)
        send("input", f"noise in blocks of 32x32 pixels; {describe(error)}")
    else:
        frames = np.stack([render(7, 20 * k, 1920, 1080).image for k in range(FRAMES)])
        images = np.stack([resize_image(frame, SIZE) for frame in frames])
        np.save(job.folder / "frames.npy", frames)
        send("input", "stream_seg.synth, 1920x1080")
    np.save(job.folder / "images.npy", images)


def compute_reference(send: Send, job: Job) -> None:
    """Save the float32 labels of the first backend that works on the CPU."""
    images = np.load(job.folder / "images.npy")
    for name, opener in {"openvino": open_openvino, "onnxruntime": open_onnxruntime, "torch": open_torch}.items():
        try:
            runner = opener("cpu", precision="f32")
            labels = np.concatenate([runner.infer(image[None]) for image in images])
        except Exception as error:  # noqa: BLE001 - whatever a package raises, the next one is tried
            send(name, {"not_run": describe(error)})
        else:
            np.save(job.folder / "labels.npy", labels)
            send("backend", f"{name} f32")
            return
    raise RuntimeError("no backend computes float32 labels on this CPU")


def measure(send: Send, job: Job, opener: Callable[[str], Runner]) -> None:
    """Open a backend and send its figures; a figure that fails does not stop the others."""
    start = time.perf_counter()
    runner = opener(job.device)
    images = np.load(job.folder / "images.npy")
    for count in (1, BATCH):
        runner.infer(images[:count])
    send("versions", runner.versions)
    send("open_s", round(time.perf_counter() - start, 1))
    figures: dict[str, Callable[[], dict[str, Any]]] = {
        "labels_equal": partial(compare_labels, runner, images, job),
        "latency_batch_1": partial(time_calls, runner, images[:1], job),
        "throughput_batch_8": partial(time_calls, runner, images[:BATCH], job),
        "streams_1080p": partial(measure_streams, runner, job),
    }
    for name, figure in figures.items():
        try:
            send(name, figure())
        except Exception as error:  # noqa: BLE001 - becomes the figure's entry
            send(name, {"not_run": describe(error)})


def compare_labels(runner: Runner, images: Pixels, job: Job) -> dict[str, Any]:
    """Compute the share of labels that equal the CPU's, over all images and of the worst image."""
    if not (job.folder / "labels.npy").is_file():
        raise RuntimeError("there are no labels of the CPU to compare with")
    labels = np.concatenate([runner.infer(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
    shares = (labels == np.load(job.folder / "labels.npy")).mean(axis=(1, 2))
    return {"share": float(shares.mean()), "worst_image": float(shares.min()), "images": len(images)}


def time_calls(runner: Runner, images: Pixels, job: Job) -> dict[str, Any]:
    """Time inference of `images` with and without copies, in turns; slow calls get fewer rounds."""
    count, recompute = len(images), runner.recompute
    calls: dict[str, Callable[[], object]] = {"with_copies": lambda: runner.infer(images)}
    if recompute is not None:
        calls["without_copies"] = lambda: recompute(count)
    for call in calls.values():
        repeat(call, job.seconds / ROUNDS)
    rounds: dict[str, list[list[float]]] = {name: [] for name in calls}
    end = time.perf_counter() + len(calls) * job.seconds
    while len(rounds["with_copies"]) < ROUNDS and (not rounds["with_copies"] or time.perf_counter() < end):
        for name, call in calls.items():
            rounds[name].append(repeat(call, job.seconds / ROUNDS))
    result: dict[str, Any] = {name: summarize(times, count) for name, times in rounds.items()}
    return result if recompute else result | {"without_copies": {"not_run": "this backend copies in every call"}}


def repeat(call: Callable[[], object], seconds: float) -> list[float]:
    """Call for `seconds`, at least once, and return the ms of each call."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return times


def summarize(rounds: list[list[float]], count: int) -> dict[str, Any]:
    """Summarize the times in ms of calls with `count` images; `streams` of RATE frames/s make that many images/s."""
    times = np.concatenate(rounds)
    p50, p99 = np.percentile(times, (50, 99))
    figures = {"p50_ms": p50, "p99_ms": p99, "min_ms": times.min(), "max_ms": times.max()}
    medians = [round(float(np.median(part)), 4) for part in rounds]
    rate = 1000 * count / float(p50)
    rest = {"round_p50_ms": medians, "calls": len(times), "images_per_s": round(rate, 1), "streams": int(rate / RATE)}
    return {name: round(float(value), 4) for name, value in figures.items()} | rest


def measure_streams(runner: Runner, job: Job) -> dict[str, Any]:
    """Find how many 1080p streams of RATE frames/s are reduced and inferred in time; see the module's docstring."""
    import cv2

    from stream_seg.ops.resize import resize_image

    cv2.setNumThreads(1)  # the threads are below
    frames, buffer = np.load(job.folder / "frames.npy"), np.empty((64 * BATCH, *SIZE, 3), np.uint8)
    workers = max(1, cores() - 1)

    def reduce(k: int) -> None:
        buffer[k] = resize_image(frames[k % len(frames)], SIZE)

    with ThreadPoolExecutor(workers) as pool:

        def compute(count: int) -> float:
            start = time.perf_counter()
            reductions = pool.map(reduce, range(count))
            for first in range(0, count, BATCH):
                deque(islice(reductions, BATCH), maxlen=0)  # until the frames of this batch are reduced
                runner.infer(buffer[first : first + BATCH])
            return time.perf_counter() - start

        def late(streams: int) -> float:
            ticks, start, count = max(3, int(RATE * job.seconds)), time.perf_counter(), 0
            for tick in range(ticks):
                time.sleep(max(0.0, start + tick / RATE - time.perf_counter()))
                compute(streams)
                count += time.perf_counter() > start + (tick + 1) / RATE
            return count / ticks

        block = min(len(buffer), BATCH * max(1, int(job.seconds / compute(BATCH))))
        spent = [compute(block)]
        while sum(spent) < job.seconds:
            spent.append(compute(block))
        capacity = block * len(spent) / sum(spent)
        tried: dict[int, float] = {}
        result = {"capacity_frames_per_s": round(capacity, 1), "reduce_threads": workers, "late_by_streams": tried}
        for streams in sorted({min(len(buffer), int(share * capacity / RATE)) for share in SHARES} - {0}, reverse=True):
            tried[streams] = late(streams)
            if tried[streams] <= 0.01:
                return result | {"streams": streams}
    return result | {"streams": 0}


def describe(error: Exception) -> str:
    """Return type and message of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
