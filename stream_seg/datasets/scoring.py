"""Compare labels with the ground truth: the confusion matrix and the metrics derived from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.types import VOID, Classes, Labels


def confusion_matrix(truth: Labels, predicted: Labels, *, classes: int) -> NDArray[np.int64]:
    """Count pixels by true class (rows) and predicted class (columns), int64 (classes, classes + 1), without true void.

    The last column counts predictions that are no class, such as void.
    """
    counted = truth != VOID
    pairs = truth[counted].astype(np.int64) * (classes + 1) + np.minimum(predicted[counted], classes)
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def compute_metrics(matrix: NDArray[np.int64], classes: Classes) -> dict[str, Any]:
    """Compute the metrics of a confusion matrix. Means are over the classes that occur in truth or prediction."""
    correct, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)[: len(classes)]
    union = true + predicted - correct
    occurs = union > 0
    iou = correct[occurs] / union[occurs]
    present = np.array(classes.names)[occurs].tolist()
    by_class = dict.fromkeys(classes.names, None) | dict(zip(present, iou.tolist(), strict=True))
    return {
        "miou": float(iou.mean()) if len(iou) else None,
        "pixel_accuracy": float(correct.sum() / matrix.sum()) if len(iou) else None,
        "class_accuracy": float((correct[true > 0] / true[true > 0]).mean()) if len(iou) else None,
        "class_iou": by_class,
    }


def format_percent(share: float | None) -> str:
    """Format a share as a percentage with one decimal; None as "-"."""
    return "-" if share is None else f"{100 * share:.1f}"
