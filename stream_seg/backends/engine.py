"""A compiled network with the same interface for every backend: uint8 images in, scores or labels out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from threading import Semaphore
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.scores import covers_image, is_finite, limit_scores
from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.network.network import Network
from stream_seg.types import VOID, Classes

LOG = logging.getLogger(__name__)

Images: TypeAlias = NDArray[np.uint8]
"""uint8 (N, H, W, 3), BGR."""
QUANTIZED = ("int8", "fp8")
"""Precisions that need the quantized form of a network."""
ANY_GPU = "any"
"""Device name of an engine that was compiled for a compute capability, not for the GPU of this machine."""


@dataclass(frozen=True)
class Device:
    """A device as one backend uses it.

    `name` is the name in `EngineInfo`, or ANY_GPU. `precisions` are ordered from the fastest to f32; `auto` takes the
    first. `on_request` are precisions that only run when they are named. `compute_capability` is a GPU's, as "8.9".
    `is_gpu`: CPU threads have no effect.
    """

    name: str
    precisions: tuple[str, ...] = ()
    on_request: tuple[str, ...] = ()
    compute_capability: str | None = None
    is_gpu: bool = False

    @property
    def label(self) -> str:
        """The device in words: "AMD EPYC", "NVIDIA H200 of capability 9.0", "any GPU of capability 8.9"."""
        name = "any GPU" if self.name == ANY_GPU else self.name
        return name if self.compute_capability is None else f"{name} of capability {self.compute_capability}"


@dataclass(frozen=True)
class EngineSpec:
    """Interface of an engine. `size` is the (height, width) of the input."""

    size: tuple[int, int]
    classes: Classes
    info: EngineInfo


@dataclass(frozen=True)
class Result:
    """Output of an engine for N images: `scores` float32 (N, C, h, w), or `labels` uint8 (N, h, w).

    `unknown`, uint8 (N, h, w), is 255 for pixels with a score that was not a number, None if there are none; their
    scores are 0.
    """

    scores: NDArray[np.float32] | None = None
    unknown: NDArray[np.uint8] | None = None
    labels: NDArray[np.uint8] | None = None


class Engine:
    """A compiled network; a context manager. Threads may share it: it takes `calls` at a time.

    Of these, `spec.info.requests` are computed and `queued` wait in the backend, which begins them at once when another
    one ends; a thread of Python would first wait for the GIL.

    `run` computes a validated batch and returns arrays that it does not touch again; so many threads call it at once.
    `errors` are the exceptions that it may raise. `close` drops the last reference to `run`, but for those of calls
    under way, and with it the memory of the backend.
    """

    def __init__(
        self,
        spec: EngineSpec,
        run: Callable[[Images], Result],
        *,
        queued: int = 0,
        errors: tuple[type[Exception], ...] = (),
    ) -> None:
        self.spec, self.calls = spec, spec.info.requests + queued
        self._errors = errors
        self._run: Callable[[Images], Result] | None = run
        self._free = Semaphore(self.calls)
        self._warned = False

    def infer(self, images: Images) -> Result:
        """Return the output for `images`, uint8 (N, H, W, 3) BGR with N >= 1 and (H, W) = spec.size.

        Infinite scores are limited to just beyond the others, so that an average of several images forgets them. Raises
        NetworkError for other arrays, a failing backend, an output that is not one per image, and labels that are no
        class.
        """
        name, (height, width) = self.spec.info.network, self.spec.size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3) or not len(images):
            expected = f"uint8 images of shape (N, {height}, {width}, 3)"
            raise NetworkError(f"{name}: takes {expected}, got {images.dtype} {images.shape}")
        with self._free:
            run = self._run
            if run is None:
                raise NetworkError(f"{name}: the engine is closed")
            try:
                result = run(images)
            except self._errors as error:
                raise NetworkError(f"{name}: {self.spec.info.backend} failed: {summarize_error(error)}") from error
        _check_result(result, count=len(images), spec=self.spec)
        if result.scores is None or is_finite(result.scores):
            return result
        result = Result(*limit_scores(result.scores))
        if result.unknown is not None and not self._warned:
            self._warned = True
            LOG.warning("%s: scores that are not a number (NaN); these pixels are void; reported once", name)
        return result

    def close(self) -> None:
        """Free the network, once calls under way have ended. Closing twice is allowed."""
        self._run = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_result(result: Result, *, count: int, spec: EngineSpec) -> None:
    name, classes = spec.info.network, len(spec.classes)
    output = result.labels if result.scores is None else result.scores
    if output is not None and len(output) != count:
        fault = f"output batch is {len(output)} for {count} image{'s' * (count > 1)}"
        raise NetworkError(f"{name}: {fault}; expected a class for every pixel, not a mask for every object")
    if result.labels is not None and result.labels.max() >= classes:
        invalid = result.labels[(result.labels >= classes) & (result.labels != VOID)]
        if len(invalid):
            known = f"its classes are 0 to {classes - 1} ({', '.join(spec.classes.names)}), and {VOID} is void"
            raise NetworkError(f"{name}: output has label {invalid.min()}; {known}")


def check_engine(engine: Engine) -> None:
    """Run an engine once and compare the shape of its output with its classes and its input. Raises NetworkError."""
    classes, size, name = len(engine.spec.classes), engine.spec.size, engine.spec.info.network
    result = engine.infer(np.zeros((1, *size, 3), np.uint8))
    scores, labels = result.scores, result.labels
    if scores is not None and (scores.ndim != 4 or scores.shape[:2] != (1, classes)):
        raise NetworkError(f"{name}: scores of shape {scores.shape}; expected (1, {classes}, h, w): {classes} classes")
    output = labels if scores is None else scores
    if output is not None and (output.ndim < 3 or not covers_image(output.shape[-2:], size)):
        kind, places = ("labels", "(1, h, w)") if scores is None else ("scores", f"(1, {classes}, h, w)")
        expected = f"{places} of the whole image, in the proportions of the input, {size[0]} x {size[1]}"
        raise NetworkError(f"{name}: {kind} of shape {output.shape}; expected {expected}")


def make_engine(
    network: Network,
    output: str,
    compute: Callable[[Images], NDArray[np.generic]],
    *,
    info: EngineInfo,
    batch: int = 1,
    least: int = 1,
    queued: int = 0,
    errors: tuple[type[Exception], ...] = (RuntimeError,),
) -> Engine:
    """Return the engine whose `compute` returns `output` ("scores" or "labels") for `least` to `batch` images.

    Missing images are copies of the last one. `batch` is 1 on a CPU, where larger batches save no time.
    `info.requests` + `queued` threads may call `compute` at once, see Engine.
    """

    def compute_part(images: Images) -> NDArray[np.generic]:
        missing = least - len(images)
        if missing <= 0:
            return compute(images)
        values = compute(np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]))
        return values[: len(images)] if len(values) == least else values  # else refused, as not one per image

    def run(images: Images) -> Result:
        parts = [compute_part(images[i : i + batch]) for i in range(0, len(images), batch)]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if output == "scores":
            return Result(scores=values.astype(np.float32, copy=False))
        return Result(labels=values.astype(np.uint8, copy=False))

    return Engine(EngineSpec(network.size, network.classes, info), run, queued=queued, errors=errors)


def select_onnx(network: Network, precision: str) -> bytes:
    """Return the form of `network` that an engine of `precision` is made from."""
    return network.int8 if precision in QUANTIZED and network.int8 else network.f32


def select_output(outputs: Collection[str]) -> str:
    """Return the output that an engine computes: "scores" if there are any, else "labels".

    Networks that version 0.1 exported have both.
    """
    return "scores" if "scores" in outputs else "labels"


def prune_onnx(graph: bytes) -> tuple[str, bytes]:
    """Return the output to compute, as `select_output`, and the ONNX without operators that only others need."""
    import onnx
    import onnx.utils

    model = onnx.load_from_string(graph)
    name = select_output([value.name for value in model.graph.output])
    return name, onnx.utils.Extractor(model).extract_model(["image"], [name]).SerializeToString()


def summarize_error(error: Exception) -> str:
    """Return the message of a backend in one line; of a long one its start (the failed check) and end (the reason)."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:100]} ... {text[-195:]}"
