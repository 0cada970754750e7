"""A compiled network with the same interface for every backend: uint8 images in, scores or labels out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from threading import Lock
from types import MappingProxyType, TracebackType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import NetworkError
from stream_seg.frame import EngineInfo
from stream_seg.types import VOID, Classes

Images: TypeAlias = NDArray[np.uint8]
"""uint8 (N, H, W, 3), BGR."""


@dataclass(frozen=True)
class EngineSpec:
    """Interface of an engine.

    `size` is the (height, width) of the input. `shapes` are the output shapes for one image, by output name ("scores"
    or "labels"). `batch` is the number of images computed at once; `infer` takes any number.
    """

    size: tuple[int, int]
    classes: Classes
    info: EngineInfo
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    batch: int = 1


@dataclass(frozen=True)
class Result:
    """Output of an engine for N images: `scores` float32 (N, C, h, w), or `labels` uint8 (N, H, W)."""

    scores: NDArray[np.float32] | None = None
    labels: NDArray[np.uint8] | None = None


class Engine:
    """A compiled network; a context manager. Threads may share an engine: it runs one call at a time.

    `run` computes a validated batch and returns arrays that it does not touch again; `errors` are the exceptions that
    it may raise. `close` drops the last reference to `run`, and with it the memory of the backend.
    """

    def __init__(
        self, spec: EngineSpec, run: Callable[[Images], Result], *, errors: tuple[type[Exception], ...] = ()
    ) -> None:
        self.spec = spec
        self._errors = errors
        self._run: Callable[[Images], Result] | None = run
        self._lock = Lock()

    def infer(self, images: Images) -> Result:
        """Return the output for `images`, uint8 (N, H, W, 3) BGR with N >= 1 and (H, W) = spec.size.

        Raises NetworkError for other arrays, a failing backend, an output that is not one per image, and labels that
        are no class.
        """
        name, expected = self.spec.info.network, (*self.spec.size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or not len(images):
            raise NetworkError(
                f"{name}: takes uint8 images of shape (N, {', '.join(map(str, expected))}), "
                f"got {images.dtype} {images.shape}"
            )
        with self._lock:
            if self._run is None:
                raise NetworkError(f"{name}: the engine is closed")
            try:
                result = self._run(images)
            except self._errors as error:
                raise NetworkError(f"{name}: {self.spec.info.backend} failed: {summarize_error(error)}") from error
        _check_result(result, count=len(images), spec=self.spec)
        return result

    def close(self) -> None:
        """Free the network. Closing twice is allowed."""
        with self._lock:
            self._run = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_result(result: Result, *, count: int, spec: EngineSpec) -> None:
    output = result.labels if result.scores is None else result.scores
    if output is not None and len(output) != count:
        raise NetworkError(
            f"{spec.info.network}: output batch is {len(output)} for {count} image{'s' * (count > 1)}; expected a "
            "class for every pixel, not a mask for every object"
        )
    classes = len(spec.classes)
    if result.labels is not None and result.labels.max() >= classes:
        invalid = result.labels[(result.labels >= classes) & (result.labels != VOID)]
        if len(invalid):
            raise NetworkError(
                f"{spec.info.network}: output has label {invalid.min()}; its classes are 0 to {classes - 1} "
                f"({', '.join(spec.classes.names)}), and {VOID} is void"
            )


def check_engine(engine: Engine) -> None:
    """Run an engine once and compare its output shape with the classes of the network. Raises NetworkError."""
    classes, size, name = len(engine.spec.classes), engine.spec.size, engine.spec.info.network
    result = engine.infer(np.zeros((1, *size, 3), np.uint8))
    if result.scores is not None and (result.scores.ndim != 4 or result.scores.shape[:2] != (1, classes)):
        raise NetworkError(
            f"{name}: scores of shape {result.scores.shape}; expected (1, {classes}, h, w): {classes} classes"
        )
    if result.labels is not None and result.labels.shape != (1, *size):
        raise NetworkError(f"{name}: labels of shape {result.labels.shape}; expected (1, {size[0]}, {size[1]})")


def make_run(
    output: str, compute: Callable[[Images], NDArray[np.generic]], *, batch: int = 1
) -> Callable[[Images], Result]:
    """Return the `run` of an engine whose `compute` returns `output` ("scores" or "labels") for up to `batch` images.

    `batch` is 1 on a CPU, where larger batches save no time.
    """

    def run(images: Images) -> Result:
        parts = [compute(images[i : i + batch]) for i in range(0, len(images), batch)]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if output == "scores":
            return Result(scores=values.astype(np.float32, copy=False))
        return Result(labels=values.astype(np.uint8, copy=False))

    return run


def select_output(outputs: Collection[str], requested: str | None) -> str:
    """Return the output to compute: `requested`, by default "scores" if there are any. Raises NetworkError."""
    if requested is None:
        return "scores" if "scores" in outputs else "labels"
    if requested not in outputs:
        raise NetworkError(f"unknown output {requested!r}; the network has {', '.join(sorted(outputs))}")
    return requested


def prune_to_output(graph: bytes, output: str | None = None) -> tuple[str, bytes]:
    """Return the output to compute (see `select_output`) and the ONNX without the operators that only others need."""
    import onnx
    import onnx.utils

    model = onnx.load_from_string(graph)
    name = select_output([value.name for value in model.graph.output], output)
    return name, onnx.utils.Extractor(model).extract_model(["image"], [name]).SerializeToString()


def summarize_error(error: Exception) -> str:
    """Return the message of a backend in one line of at most 300 characters.

    Long ones keep their beginning and end, which name the failed check and the reason.
    """
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:100]} ... {text[-195:]}"
