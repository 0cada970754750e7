"""Compare a network in a lower precision with float32 on the same images, and decide whether it is accepted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stream_seg.backends.engine import Engine
from stream_seg.datasets.scoring import compute_metrics, confusion_matrix
from stream_seg.engines.calibration import CalibrationSet, Sample
from stream_seg.network.sidecar import AccuracyReport, Comparison
from stream_seg.ops.labels import mark_void, resize_labels, upsampled_argmax
from stream_seg.types import Classes, Labels


@dataclass(frozen=True)
class LabelPair:
    """Labels of one image in float32 and in a lower precision, and its truth if known; all of the same size."""

    name: str
    f32: Labels
    lower: Labels
    truth: Labels | None = None


@dataclass(frozen=True)
class Limits:
    """Accepted loss: mIoU points for images with a truth, else the share of labels that equal those of float32."""

    miou_loss: float = 0.5
    agreement: float = 0.99


def measure_accuracy(f32: Engine, lower: Engine, images: CalibrationSet, *, limits: Limits) -> AccuracyReport:
    """Return the accuracy report of two engines of one network. `refused` is None if both sets are within limits."""
    sets = {"calibration": images.fit, "held back": images.held_back}
    results = {
        name: compare_labels(_label_pairs(samples, f32, lower), f32.spec.classes) for name, samples in sets.items()
    }
    reasons = [f"{name}: {why}" for name, one in results.items() if (why := explain_refusal(one, limits))]
    return {
        "source": images.source,
        "calibration": results["calibration"],
        "held_back": results["held back"],
        "limits": vars(limits),
        "computed_by": f"{lower.spec.info.backend} on {lower.spec.info.device}",
        "refused": reasons[0] if reasons else None,
        "judged_on": images.images_digest(),
    }


def _label_pairs(samples: Sequence[Sample], f32: Engine, lower: Engine) -> Iterator[LabelPair]:
    """Yield the labels of both engines for each image, at the size of its truth, else of the network's input."""
    for sample in samples:
        height, width = f32.spec.size if sample.truth is None else sample.truth.shape
        labels = [_compute_labels(engine, sample, (height, width)) for engine in (f32, lower)]
        yield LabelPair(sample.name, labels[0], labels[1], sample.truth)


def _compute_labels(engine: Engine, sample: Sample, size: tuple[int, int]) -> Labels:
    result = engine.infer(sample.image[None])
    if result.scores is not None:
        labels = upsampled_argmax(np.ascontiguousarray(result.scores[0]), size)
        return labels if result.unknown is None else mark_void(labels, result.unknown[0])
    assert result.labels is not None  # an engine returns scores or labels
    return resize_labels(result.labels[0], size)


def compare_labels(pairs: Iterable[LabelPair], classes: Classes) -> Comparison:
    """Return the comparison of at least one pair of label maps. Only counts are kept of each."""
    count = len(classes)
    mutual, right_f32, right_lower = (np.zeros((count, count + 1), np.int64) for _ in range(3))
    total, labelled, equal, pixels, worst, worst_image = 0, 0, 0, 0, 2.0, ""
    for pair in pairs:
        same = int(np.count_nonzero(pair.f32 == pair.lower))
        total, equal, pixels = total + 1, equal + same, pixels + pair.f32.size
        if same / pair.f32.size < worst:
            worst, worst_image = same / pair.f32.size, pair.name
        mutual += confusion_matrix(pair.f32, pair.lower, classes=count)
        if pair.truth is not None:
            labelled += 1
            right_f32 += confusion_matrix(pair.truth, pair.f32, classes=count)
            right_lower += confusion_matrix(pair.truth, pair.lower, classes=count)
    matrices = (mutual, right_f32, right_lower)
    miou, miou_f32, miou_lower = (compute_metrics(matrix, classes)["miou"] for matrix in matrices)
    return {
        "images": total,
        "agreement": equal / pixels,
        "worst": worst,
        "worst_image": worst_image,
        "miou": 1.0 if miou is None else miou,  # two networks that only predict void agree
        "labelled": labelled,
        "miou_f32": miou_f32,
        "miou_lower": miou_lower,
        "miou_loss": None if miou_f32 is None or miou_lower is None else 100 * (miou_f32 - miou_lower),
    }


def explain_refusal(comparison: Comparison, limits: Limits) -> str | None:
    """Return the limit that a comparison exceeds, in a few words; None if it is within the limits."""
    loss, agreement = comparison["miou_loss"], comparison["agreement"]
    if loss is not None:
        return None if loss <= limits.miou_loss else f"loses {loss:.2f} mIoU, at most {limits.miou_loss:g} allowed"
    if agreement >= limits.agreement:
        return None
    return (
        f"{100 * agreement:.2f} % of the labels equal f32, at least {100 * limits.agreement:g} % required"
        f" (worst image {comparison['worst_image']}: {100 * comparison['worst']:.2f} %)"
    )
