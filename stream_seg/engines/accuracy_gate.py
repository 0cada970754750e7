"""Is a network in lower precision still the same network? Its labels are held against those it gives in float32.

Pure arithmetic on label maps: who computed them, and where, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stream_seg.datasets.scoring import confusion, figures
from stream_seg.network.sidecar import Judged, Report
from stream_seg.types import Classes, Labels


@dataclass(frozen=True)
class Compared:
    """One picture's labels in float32 and in lower precision, and, where it is known, the truth. All of one size."""

    name: str
    f32: Labels
    lower: Labels
    truth: Labels | None = None


@dataclass(frozen=True)
class Limits:
    """How far a lower precision may be off: mIoU points lost where there is truth, else the share of equal labels."""

    miou_loss: float = 0.5
    agreement: float = 0.99


def compared(pictures: Iterable[Compared], classes: Classes) -> Judged:
    """At least one picture; of each, only counts are kept."""
    count = len(classes)
    mutual, right_f32, right_lower = (np.zeros((count, count + 1), np.int64) for _ in range(3))
    equal, pixels, labelled, worst, worst_picture = 0, 0, 0, 2.0, ""
    total = 0
    for picture in pictures:
        same = int(np.count_nonzero(picture.f32 == picture.lower))
        share = same / picture.f32.size
        total, equal, pixels = total + 1, equal + same, pixels + picture.f32.size
        if share < worst:
            worst, worst_picture = share, picture.name
        mutual += confusion(picture.f32, picture.lower, classes=count)
        if picture.truth is not None:
            labelled += 1
            right_f32 += confusion(picture.truth, picture.f32, classes=count)
            right_lower += confusion(picture.truth, picture.lower, classes=count)
    miou, miou_f32, miou_lower = (figures(matrix, classes)["miou"] for matrix in (mutual, right_f32, right_lower))
    return {
        "pictures": total,
        "agreement": equal / pixels,
        "worst": worst,
        "worst_picture": worst_picture,
        "miou": 1.0 if miou is None else miou,  # two networks that say nothing but void agree
        "labelled": labelled,
        "miou_f32": miou_f32,
        "miou_lower": miou_lower,
        "miou_loss": None if miou_f32 is None or miou_lower is None else 100 * (miou_f32 - miou_lower),
    }


def refusal(found: Judged, limits: Limits) -> str | None:
    """Why this is past the limits, in a few words; None where it is within."""
    loss = found["miou_loss"]
    if loss is not None:
        return None if loss <= limits.miou_loss else f"loses {loss:.2f} mIoU, {limits.miou_loss:g} are allowed"
    if found["agreement"] >= limits.agreement:
        return None
    return (
        f"{100 * found['agreement']:.2f} % of the labels are those of f32, {100 * limits.agreement:g} % are needed"
        f" (worst picture {found['worst_picture']}: {100 * found['worst']:.2f} %)"
    )


def as_report(
    calibration: Judged, held_back: Judged, limits: Limits, *, source: str, computed_by: str, judged_on: str
) -> Report:
    """The accuracy report that is kept beside an engine. `refused` is None where both sets are within limits."""
    sets = {"calibration": calibration, "held back": held_back}
    refused = [f"{name}: {why}" for name, found in sets.items() if (why := refusal(found, limits))]
    return {
        "source": source,
        "calibration": calibration,
        "held_back": held_back,
        "limits": vars(limits),
        "computed_by": computed_by,
        "refused": refused[0] if refused else None,
        "judged_on": judged_on,
    }
