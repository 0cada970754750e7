"""Computing what the accuracy gate compares: a network in two precisions, on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream_seg.backends.device import Target
from stream_seg.backends.engine import Engine
from stream_seg.backends.registry import opened_with
from stream_seg.engines.accuracy_gate import Compared, Limits, as_report, compared
from stream_seg.engines.calibration import CalibrationSet, Sample
from stream_seg.network.network import Network
from stream_seg.network.sidecar import Report
from stream_seg.ops.labels import resized_labels, upsampled_argmax
from stream_seg.types import Labels


@dataclass(frozen=True)
class Say:
    """Where the progress of a build is told: `line` what should stay to be read, `step` what may be written over."""

    line: Callable[[str], None]
    step: Callable[[str], None] = lambda _: None


def opened_for(network: Network, target: Target, precision: str, engine: bytes | None) -> Engine:
    """An engine to compare with. For a GPU that is not here ONNX Runtime computes the graph of the plan."""
    if target.backend == "tensorrt" and target.device == "any":
        from stream_seg.backends.tensorrt.backend import graph_of
        from stream_seg.backends.tensorrt.precision import typed

        graph = typed(graph_of(network, precision), precision=precision, name=network.name)
        return opened_with(replace(network, f32=graph), "onnxruntime", precision="f32")
    if engine is None and target.backend == "tensorrt":
        engine = plan_of(network, precision, target=target, batch=1, step=lambda _: None)
    return opened_with(network, target.backend, precision=precision, engine=engine)


def plan_of(network: Network, precision: str, *, target: Target, batch: int, step: Callable[[str], None]) -> bytes:
    """A TensorRT plan; `step` is told how far it is. Raises NetworkError."""
    from stream_seg.backends.engine import cheapest
    from stream_seg.backends.tensorrt.backend import graph_of
    from stream_seg.backends.tensorrt.build import build as build_plan

    def told(phase: str, done: int, steps: int) -> None:
        step(f"{network.name}: TensorRT builds {precision}: {phase}, {done} of {steps}")

    return build_plan(
        cheapest(graph_of(network, precision))[1],
        precision=precision,
        size=network.size,
        batch=(1, batch),
        compute_capability=target.compute_capability if target.device == "any" else None,
        progress=told,
        name=network.name,
    )


def report_of(f32: Engine, lower: Engine, frames: CalibrationSet, *, limits: Limits) -> Report:
    """The accuracy report (`gate.as_report`) of two engines of one network on the pictures of a set."""
    fit, held_back = (compared(both(s, f32, lower), f32.spec.classes) for s in (frames.fit, frames.held_back))
    by = f"{lower.spec.info.backend} on {lower.spec.info.device}"
    return as_report(fit, held_back, limits, source=frames.shown, computed_by=by, judged_on=frames.judged_on())


def both(samples: Sequence[Sample], f32: Engine, lower: Engine) -> Iterator[Compared]:
    """The labels of two engines, at the size of the truth where there is one."""
    for sample in samples:
        height, width = f32.spec.size if sample.truth is None else sample.truth.shape
        said = [_labels(engine, sample, (height, width)) for engine in (f32, lower)]
        yield Compared(sample.name, said[0], said[1], sample.truth)


def _labels(engine: Engine, sample: Sample, size: tuple[int, int]) -> Labels:
    result = engine.infer(sample.image[None])
    if result.scores is not None:
        return upsampled_argmax(np.ascontiguousarray(result.scores[0]), size)
    assert result.labels is not None  # an engine says one or the other
    return resized_labels(result.labels[0], size)
