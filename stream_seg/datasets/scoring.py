"""What labels are worth against the truth: the confusion matrix, and the figures that it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.types import VOID, Classes, Labels


def confusion(truth: Labels, predicted: Labels, *, classes: int) -> NDArray[np.int64]:
    """Pixels by true class (rows) and predicted class (columns), int64 (classes, classes + 1); true void is left out.

    The last column holds the pixels whose prediction is no class: a user's network may say void.
    """
    counted = truth != VOID
    pairs = truth[counted].astype(np.int64) * (classes + 1) + np.minimum(predicted[counted], classes)
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def figures(matrix: NDArray[np.int64], classes: Classes) -> dict[str, Any]:
    """The figures that a confusion matrix holds. Means are over the classes that occur, in truth or prediction."""
    right, true, said = np.diag(matrix), matrix.sum(1), matrix.sum(0)[: len(classes)]
    union = true + said - right
    occurs = union > 0
    iou = right[occurs] / union[occurs]
    by_class = dict.fromkeys(classes.names, None) | dict(
        zip(np.array(classes.names)[occurs].tolist(), iou.tolist(), strict=True)
    )
    return {
        "miou": float(iou.mean()) if len(iou) else None,
        "pixel_accuracy": float(right.sum() / matrix.sum()) if len(iou) else None,
        "class_accuracy": float((right[true > 0] / true[true > 0]).mean()) if len(iou) else None,
        "class_iou": by_class,
    }


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal; "-" for none."""
    return "-" if share is None else f"{100 * share:.1f}"
