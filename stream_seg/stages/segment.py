"""`segment`: the class of every pixel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import field, replace
from functools import partial
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from stream_seg.backends.engine import Engine
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.frame import Semantic
from stream_seg.keyframes.keyframes import Keys
from stream_seg.keyframes.latency_control import Steering
from stream_seg.network.network import Network, is_network, open_network, preferring, resized, unknown
from stream_seg.network.sidecar import Prefer, Size
from stream_seg.ops.resize import reduced
from stream_seg.stages.base import STRICT, Frames, Policy
from stream_seg.types import Image

log = logging.getLogger(__name__)


@dataclass(config=STRICT)
class Segment:
    """Say the class of every pixel, with a network compiled for this machine.

    With `every` the network looks at key frames only, and what it said is carried on by the motion in the picture. Of
    live frames none waits for it: a key frame's classes are used as soon as they are there, moved to where things are
    by then. With `target_ms` the stage works more cheaply while frames get too old on their way to the outputs.
    """

    network: Annotated[
        str | dict[str, Any], Field(description="a name (road), an ONNX file with its side-car, or a side-car's keys")
    ] = "road"
    backend: Annotated[
        Literal["auto", "tensorrt", "openvino", "onnxruntime", "torch"],
        Field(description="what computes; auto takes the fastest that works here"),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "int8", "fp8", "fp16", "bf16", "f32"],
        Field(description="arithmetic; auto takes the fastest that there is"),
    ] = "auto"
    size: Annotated[
        Size | None,
        Field(description="[height, width] of its input, instead of its own: larger sees more, and takes longer"),
    ] = None
    prefer: Prefer = field(default_factory=dict)
    threads: Annotated[int, Field(ge=1, le=256, description="CPU threads of the network")] = 1
    every: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | Literal["auto"],
        Field(description="frames from one key frame to the next; auto: as the picture changes; 1: every frame is one"),
    ] = 1
    target_ms: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="age at the outputs that 95 % of live frames are to stay under"),
    ] = None
    policy: Annotated[
        Policy | None, Field(description="how frames come: latest (live) or every; without it, as the graph has it")
    ] = None

    @field_validator("network")
    @classmethod
    def _known(cls, network: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(network, str) and not is_network(network):
            raise ValueError(unknown(network))
        return network

    def __call__(self, frames: Frames) -> Frames:
        if self.target_ms is not None and self.policy != "latest":
            raise ConfigError(
                "segment.target_ms: frames of a file wait for each other, and none is ever late; "
                "leave it out, or set policy: latest"
            )
        network = preferring(open_network(self.network, size=self.size), self.prefer, where="segment.prefer")
        with ExitStack() as opened:
            engine = opened.enter_context(self._engine(network))
            if self.every == 1 and self.target_ms is None:
                for frame in frames:
                    yield replace(frame, semantic=segmented(frame.image, engine)) if frame.signal is None else frame
                return
            smaller = self._smaller(network) if self.target_ms is not None else None
            engines = [engine] if smaller is None else [engine, opened.enter_context(smaller)]
            steering = Steering(
                engines, every=self.every, target_ms=self.target_ms, ask=partial(asked, size=network.size)
            )
            keys = Keys(opened.enter_context(ThreadPoolExecutor(1, "segment")) if self.policy == "latest" else None)
            yield from keyed(frames, keys, steering)

    def _smaller(self, network: Network) -> Engine | None:
        """An engine of the same network at half its input; None where the graph has its size built in."""
        try:
            return self._engine(smaller(network))
        except NetworkError as error:
            log.warning("segment.target_ms: no smaller network, only key frames are left: %s", error)
            return None

    def _engine(self, network: Network) -> Engine:
        return open_engine(network, backend=self.backend, precision=self.precision, threads=self.threads)


def smaller(network: Network) -> Network:
    """The same network at half its input, the sides rounded down to what its strides divide. Raises NetworkError."""
    from stream_seg.network.resize import MULTIPLES, refuse_size

    (height, width), name = network.size, network.name
    halves = height // 2, width // 2
    sizes = dict.fromkeys((halves[0] // m * m, halves[1] // m * m) for m in MULTIPLES if m <= min(halves))
    for size in sizes:
        half = resized(network, size)
        try:
            refuse_size(half.f32, network.size, size, name=name)
        except NetworkError:
            continue
        return half
    tried = ", ".join(f"{height}x{width}" for height, width in sizes)
    raise NetworkError(f"{name}: its graph takes pictures of {height}x{width} (height x width) and none of {tried}")


def keyed(frames: Frames, keys: Keys, steering: Steering) -> Frames:
    """Frames with the classes of key frames, on the rung that the ages of earlier ones ask for."""
    for frame in frames:
        if frame.signal is not None:
            yield frame
            continue
        change = steering.hear(frame.ages)
        done, temporal = keys.frame(frame, steering.look, every=steering.every)
        yield replace(done, temporal=replace(temporal, rung=steering.rung, change=change))


def segmented(image: Image, engine: Engine) -> Semantic:
    """What an engine says of one picture of any size."""
    return _said(reduced(image, engine.spec.size), engine, size=engine.spec.size)


def asked(image: Image, engine: Engine, *, size: tuple[int, int]) -> Callable[[], Semantic]:
    """What asks an engine about a picture that may be drawn on before it is called. `size` is that of the labels."""
    picture = reduced(image, engine.spec.size)
    picture = picture.copy() if picture is image else picture
    return lambda: _said(picture, engine, size=size)


def _said(picture: Image, engine: Engine, *, size: tuple[int, int]) -> Semantic:
    spec = engine.spec
    result = engine.infer(picture[None])
    scores = None if result.scores is None else result.scores[0]
    verdict = (
        None
        if result.labels is None
        else np.asarray(cv2.resize(result.labels[0], size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    )
    return Semantic(spec.classes, spec.info, size, scores, verdict)
