"""A compiled network: uint8 pictures in, scores or labels out. The same for every backend, which gives the function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
"""uint8 (N, H, W, 3), blue green red."""


@dataclass(frozen=True)
class EngineSpec:
    """`size` is the (height, width) of the input; `info` says what computes, in which precision, on which device.

    `shapes` are one picture's, by output ("scores" or "labels"). `batch` is how many pictures are computed at once;
    `infer` takes any number.
    """

    size: tuple[int, int]
    classes: Classes
    info: EngineInfo
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    batch: int = 1


@dataclass(frozen=True)
class Result:
    """What an engine says of N pictures: `scores` float32 (N, C, h, w), or `labels` uint8 (N, H, W)."""

    scores: NDArray[np.float32] | None = None
    labels: NDArray[np.uint8] | None = None


class Engine:
    """A compiled network, a context manager. Threads may share it; they take turns.

    `run` computes a checked batch and returns arrays that it will not touch again; `errors` are what it may raise. Its
    memory is freed with the last reference to it, which `close` drops.
    """

    def __init__(
        self, spec: EngineSpec, run: Callable[[Images], Result], *, errors: tuple[type[Exception], ...] = ()
    ) -> None:
        self.spec = spec
        self._errors = errors
        self._run: Callable[[Images], Result] | None = run
        self._turn = Lock()
        self._worker = ThreadPoolExecutor(1, f"{spec.info.backend} engine")  # starts no thread before it is used

    def infer(self, images: Images) -> Result:
        """What the network says of uint8 (N, H, W, 3) BGR, N >= 1, H and W as spec.size.

        Raises NetworkError, also where it says anything but one thing of each picture, or a class that it has not.
        """
        expected = (*self.spec.size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or not len(images):
            raise NetworkError(
                f"{self.spec.info.network}: takes uint8 images of shape (N, {', '.join(map(str, expected))}), "
                f"got {images.dtype} {images.shape}"
            )
        with self._turn:
            if self._run is None:
                raise NetworkError(f"{self.spec.info.network}: the engine is closed")
            try:
                result = self._run(images)
            except self._errors as error:
                info = self.spec.info
                raise NetworkError(f"{info.network}: {info.backend} failed: {one_line(error)}") from error
        _refuse(result, pictures=len(images), spec=self.spec)
        return result

    def submit(self, images: Images) -> Future[Result]:
        """`infer` in the background, one call after the other; `images` must stay as they are until `result()`.

        Meanwhile the caller prepares the next picture. Every backend computes without Python's lock.
        """
        try:
            return self._worker.submit(self.infer, images)
        except RuntimeError as error:  # what a shut down executor raises
            raise NetworkError(f"{self.spec.info.network}: the engine is closed") from error

    def close(self) -> None:
        """Free the network; what was submitted before is computed first. Closing twice is fine."""
        self._worker.shutdown()
        with self._turn:
            self._run = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse(result: Result, *, pictures: int, spec: EngineSpec) -> None:
    said = result.labels if result.scores is None else result.scores
    if said is not None and len(said) != pictures:
        raise NetworkError(
            f"{spec.info.network}: says {len(said)} things of {pictures} picture{'s' * (pictures > 1)}; one each is "
            "expected: a class for every pixel, not one mask for every object"
        )
    classes = len(spec.classes)
    if result.labels is not None and result.labels.max() >= classes:
        foreign = result.labels[(result.labels >= classes) & (result.labels != VOID)]
        if len(foreign):
            raise NetworkError(
                f"{spec.info.network}: says label {foreign.min()}; its classes are 0 to {classes - 1} "
                f"({', '.join(spec.classes.names)}), and {VOID} is void"
            )


def in_batches(infer: Callable[[Images], NDArray[np.generic]], images: Images, *, most: int = 1) -> NDArray[np.generic]:
    """Any number of pictures, `most` at a time. On a CPU one: a batch saves nothing, and some networks take no more."""
    parts = [infer(images[i : i + most]) for i in range(0, len(images), most)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def wanted(outputs: Collection[str], asked: str | None) -> str:
    """The output to compute: `asked`, else "scores" where there are any. Raises NetworkError where it is not there."""
    if asked is None:
        return "scores" if "scores" in outputs else "labels"
    if asked not in outputs:
        raise NetworkError(f"output {asked!r}: the network gives {', '.join(sorted(outputs))}")
    return asked


def cheapest(serialised: bytes, output: str | None = None) -> tuple[str, bytes]:
    """The output to compute (see `wanted`), and the graph cut down to it: an engine runs whatever the graph holds."""
    import onnx
    import onnx.utils

    model = onnx.load_from_string(serialised)
    name = wanted([value.name for value in model.graph.output], output)
    return name, onnx.utils.Extractor(model).extract_model(["image"], [name]).SerializeToString()


def as_result(name: str, values: NDArray[np.generic]) -> Result:
    """The output called `name` ("scores" or "labels") as a Result."""
    if name == "scores":
        return Result(scores=values.astype(np.float32, copy=False))
    return Result(labels=values.astype(np.uint8, copy=False))


def one_line(error: Exception) -> str:
    """A backend's complaint, often a page, with its beginning and its end, which name the check and the reason."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:100]} ... {text[-195:]}"
