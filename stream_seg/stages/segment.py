"""`segment`: labels every pixel with a neural network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import field, replace
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import cv2
import numpy as np
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from stream_seg.backends.cpu import count_cores
from stream_seg.backends.engine import Engine
from stream_seg.backends.registry import backend_names, precision_names
from stream_seg.datasets.palettes import PaletteName
from stream_seg.engines.open import open_engine
from stream_seg.errors import ConfigError, NetworkError
from stream_seg.frame import Frame, Semantic
from stream_seg.keyframes.keyframes import Inference, KeyFrames
from stream_seg.keyframes.latency_control import LatencyControl
from stream_seg.network.network import (
    Network,
    bias_network,
    explain_unknown,
    is_network,
    open_network,
    recolour_network,
    resize_network,
)
from stream_seg.network.sidecar import Prefer, Size
from stream_seg.ops.resize import resize_image
from stream_seg.schema.validation import OneOf
from stream_seg.stages.base import STRICT, Context, Frames, Traits
from stream_seg.stages.lookahead import Lookahead
from stream_seg.stages.workers import Workers
from stream_seg.types import Image
from stream_seg.zoo import explain_untrained

LOG = logging.getLogger(__name__)
MOST_REQUESTS = 4
"""Images of a recording that are computed at a time by default, at most; each needs 25 MiB for the road network."""
PlannedFrames: TypeAlias = Iterator[tuple[Frame, Inference]]
"""Frames, each with the function that runs the network on it, or returns a result that was computed ahead."""
LOADING_S = 120.0
"""Longest time between two signs of progress while a network is loaded or an engine is built."""


def _check_network(network: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(network, str) and not is_network(network):
        raise ValueError(explain_untrained(network) or explain_unknown(network))
    return network


@dataclass(config=STRICT)
class Segment:
    """Label every pixel with a network compiled for this machine.

    With `every` the network runs on key frames only; the frames between get the scores of the last key frame, warped by
    the motion in the video. Live frames do not wait for the network: the scores of a key frame are used as soon as they
    are computed, warped to the current frame. With `target_ms` the stage lowers its quality while frames reach the
    outputs too late.
    """

    traits = Traits(produces=("labels",), replaces_labels=True, age_feedback=True)

    network: Annotated[
        str | dict[str, Any],
        AfterValidator(_check_network),
        Field(description="a name (road), the path of an ONNX or its side-car, or the keys of a side-car"),
    ] = "road"
    backend: Annotated[
        str, OneOf(backend_names), Field(description="library that runs the network; auto: the fastest that works here")
    ] = "auto"
    precision: Annotated[
        str, OneOf(precision_names), Field(description="number type of the network; auto: the fastest available")
    ] = "auto"
    size: Annotated[
        Size | None,
        Field(description="[height, width] of the network's input; larger takes longer and may find smaller objects"),
    ] = None
    prefer: Prefer = field(default_factory=dict)
    palette: Annotated[
        PaletteName | None,
        Field(description="colours by class name: distinct (road users stand out) or those of a data set"),
    ] = None
    threads: Annotated[int, Field(ge=1, le=256, description="CPU threads of the network; no effect on a GPU")] = 1
    requests: Annotated[
        int | None,
        Field(ge=1, le=64, description="images computed at a time; none: one per core, but 1 of a single live source"),
    ] = None
    every: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | Literal["auto"],
        Field(description="frames from one key frame to the next; auto: depends on the motion; 1: all are key frames"),
    ] = 1
    target_ms: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="upper limit for the age of 95 % of live frames at the outputs"),
    ] = None

    def __post_init__(self) -> None:
        self._context = Context()

    def bind(self, context: Context) -> Segment:
        """Return the stage with the policy of its links. Raises ConfigError for `target_ms` without policy latest."""
        if self.target_ms is not None and context.policy != "latest":
            raise ConfigError(
                f"{context.name}.target_ms: needs policy latest: frames of a recording wait for each other and none is "
                "late; remove target_ms, or set policy: latest"
            )
        bound = replace(self)
        bound._context = context
        return bound

    def __call__(self, frames: Frames) -> Frames:
        network = bias_network(open_network(self.network, size=self.size), self.prefer, where="segment.prefer")
        network = recolour_network(network, self.palette, where="segment")
        with ExitStack() as resources:
            engine = resources.enter_context(self._open(network))
            workers = resources.enter_context(Workers(engine.calls, name="segment"))
            if self.every == 1 and self.target_ms is None:

                def infer(image: Image) -> Callable[[], Semantic]:
                    return partial(segment_image, image, engine)

                yield from segment_frames(self._plan(frames, infer, engine, workers))
                return
            engines = [engine]
            if self.target_ms is not None:
                try:
                    engines.append(resources.enter_context(self._open(halve_network(network))))
                except NetworkError as error:  # the graph only works at its own size
                    LOG.warning("segment.target_ms: no smaller network, only fewer key frames: %s", error)
            defer = partial(defer_inference, size=network.size)
            control = LatencyControl(engines, every=self.every, target_ms=self.target_ms, defer=defer)
            live = self._context.policy == "latest"
            planned = self._plan(frames, control.infer, engine, None if live else workers)
            yield from segment_key_frames(planned, KeyFrames(workers if live else None), control)

    def _plan(self, frames: Frames, infer: Inference, engine: Engine, workers: Workers | None) -> PlannedFrames:
        """Return the frames with their inference, which runs ahead if there are `workers` for several images."""
        requests = engine.spec.info.requests
        if workers is None or requests == 1 or self.every == "auto":
            return ((frame, infer) for frame in frames)
        ahead = Lookahead(infer, workers, every=self.every, requests=requests, context=self._context)
        return ahead.read(frames)

    @property
    def _requests(self) -> int:
        """Images to compute at a time. Each core computes one; of one live source a second one would only grow old."""
        if self.requests is not None:
            return self.requests
        if self._context.policy == "latest" and not self._context.other_sources:
            return 1
        return max(1, min(MOST_REQUESTS, count_cores() // self.threads))

    def _open(self, network: Network) -> Engine:
        busy = partial(self._context.busy, within_s=LOADING_S)
        busy(f"loading the network {network.name}")
        return open_engine(
            network,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
            requests=self._requests,
            on_progress=busy,
        )


def halve_network(network: Network) -> Network:
    """Return the network at half its input size, rounded down to multiples of its strides. Raises NetworkError."""
    from stream_seg.network.resize import MULTIPLES, find_size

    height, width = network.size
    half = height // 2, width // 2
    sizes = dict.fromkeys((half[0] // m * m, half[1] // m * m) for m in MULTIPLES if m <= min(half))
    size = find_size(network.f32, network.size, sizes)
    if size is None:
        tried = ", ".join(f"{height}x{width}" for height, width in sizes)
        raise NetworkError(f"{network.name}: only takes images of {height}x{width} (height x width), not of {tried}")
    return resize_network(network, size)


def segment_frames(planned: PlannedFrames) -> Frames:
    """Yield frames with the scores or labels of the network."""
    for frame, infer in planned:
        yield frame if frame.signal else replace(frame, semantic=infer(frame.image)())


def segment_key_frames(planned: PlannedFrames, key_frames: KeyFrames, control: LatencyControl) -> Frames:
    """Yield frames with the scores of their key frame, at the quality level that the ages of earlier frames allow."""
    for frame, infer in planned:
        if frame.signal is not None:
            yield frame
            continue
        change = control.adjust(frame.ages)
        done, temporal = key_frames.segment(frame, infer, every=control.every)
        temporal = replace(temporal, every=control.every, input_size=control.input_size)
        yield replace(done, temporal=replace(temporal, quality_level=control.quality_level, quality_change=change))


def segment_image(image: Image, engine: Engine) -> Semantic:
    """Return the scores or labels of one image of any size."""
    return _infer(resize_image(image, engine.spec.size), engine, size=engine.spec.size)


def defer_inference(image: Image, engine: Engine, *, size: tuple[int, int]) -> Callable[[], Semantic]:
    """Return a function that segments `image`, which may be drawn on before the call. `size` is that of the labels."""
    resized = resize_image(image, engine.spec.size)
    resized = resized.copy() if resized is image else resized
    return lambda: _infer(resized, engine, size=size)


def _infer(image: Image, engine: Engine, *, size: tuple[int, int]) -> Semantic:
    spec = engine.spec
    result = engine.infer(image[None])
    scores = None if result.scores is None else result.scores[0]
    if result.labels is None:
        unknown = None if result.unknown is None else result.unknown[0]
        return Semantic(spec.classes, spec.info, size, scores, unknown=unknown, scaled=image)
    labels = cv2.resize(result.labels[0], size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return Semantic(spec.classes, spec.info, size, scores, np.asarray(labels, np.uint8), scaled=image)
