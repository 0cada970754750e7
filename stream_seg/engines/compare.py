"""Run a network in two precisions on the same images, for the accuracy gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream_seg.backends.choose import Target, open_backend
from stream_seg.backends.engine import ANY_GPU, Engine
from stream_seg.backends.registry import BACKENDS
from stream_seg.engines.accuracy_gate import LabelPair, Limits, compare_labels, make_report
from stream_seg.engines.calibration import CalibrationSet, Sample
from stream_seg.network.network import Network
from stream_seg.network.sidecar import AccuracyReport
from stream_seg.ops.labels import resize_labels, upsampled_argmax
from stream_seg.types import Labels


@dataclass(frozen=True)
class Reporter:
    """Receiver of a build's progress: `line` gets messages to keep, `step` a status that may be overwritten."""

    line: Callable[[str], None]
    step: Callable[[str], None] = lambda _: None


def compile_network(
    network: Network, precision: str, *, target: Target, batch: int, on_status: Callable[[str], None]
) -> bytes:
    """Return `network` as compiled ahead of time for a target whose backend has a compiler. Raises NetworkError."""
    backend = BACKENDS[target.backend]
    assert backend.compiler is not None

    def report_step(phase: str, done: int, steps: int) -> None:
        on_status(f"{network.name}: {backend.title} builds {precision}: {phase}, {done} of {steps}")

    capability = target.device.compute_capability if target.device.name == ANY_GPU else None
    return backend.compiler.compile(network, precision, batch=batch, compute_capability=capability, on_step=report_step)


def open_to_compare(network: Network, target: Target, precision: str, built: bytes | None) -> Engine:
    """Open `network` as built for a target. For a device that is not here, ONNX Runtime runs the compiled ONNX."""
    compiler = BACKENDS[target.backend].compiler
    if compiler is not None and target.device.name == ANY_GPU:
        lowered = replace(network, f32=compiler.lower(network, precision))
        return open_backend(lowered, "onnxruntime", precision="f32")
    if compiler is not None and built is None:
        built = compile_network(network, precision, target=target, batch=1, on_status=lambda _: None)
    return open_backend(network, target.backend, precision=precision, built=built)


def measure_accuracy(f32: Engine, lower: Engine, images: CalibrationSet, *, limits: Limits) -> AccuracyReport:
    """Return the accuracy report of two engines of one network, in float32 and a lower precision."""
    sets = (images.fit, images.held_back)
    fit, held_back = (compare_labels(_label_pairs(samples, f32, lower), f32.spec.classes) for samples in sets)
    return make_report(
        fit,
        held_back,
        limits,
        source=images.source,
        computed_by=f"{lower.spec.info.backend} on {lower.spec.info.device}",
        images_digest=images.images_digest(),
    )


def _label_pairs(samples: Sequence[Sample], f32: Engine, lower: Engine) -> Iterator[LabelPair]:
    """Yield the labels of both engines for each image, at the size of its truth, else of the network's input."""
    for sample in samples:
        height, width = f32.spec.size if sample.truth is None else sample.truth.shape
        labels = [_compute_labels(engine, sample, (height, width)) for engine in (f32, lower)]
        yield LabelPair(sample.name, labels[0], labels[1], sample.truth)


def _compute_labels(engine: Engine, sample: Sample, size: tuple[int, int]) -> Labels:
    result = engine.infer(sample.image[None])
    if result.scores is not None:
        return upsampled_argmax(np.ascontiguousarray(result.scores[0]), size)
    assert result.labels is not None  # an engine returns scores or labels
    return resize_labels(result.labels[0], size)
