"""Is a network in lower precision still the same network? Its labels are held against those it gives in float32.

Pure arithmetic on label maps: who computed them, and where, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np

from stream_seg.arrays import Labels
from stream_seg.classes import Classes
from stream_seg.confusion import confusion, figures
from stream_seg.sidecar import Judged, Report


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


@dataclass(frozen=True)
class Figures:
    """`agreement` is the share of pixels with equal labels, over all pictures and in the `worst` one; `miou` that of
    the lower precision with float32 as the truth, 0 to 1. `miou_f32` and `miou_lower` are against the truth of the
    `labelled` pictures, None without any."""

    pictures: int
    agreement: float
    worst: float
    worst_picture: str
    miou: float
    labelled: int
    miou_f32: float | None
    miou_lower: float | None

    @property
    def miou_loss(self) -> float | None:
        """In points of 100; below 0 where the lower precision is better."""
        if self.miou_f32 is None or self.miou_lower is None:
            return None
        return 100 * (self.miou_f32 - self.miou_lower)


def compared(pictures: Iterable[Compared], classes: Classes) -> Figures:
    """The figures of at least one picture; of each, only counts are kept."""
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
    # two networks that say nothing but void agree
    return Figures(
        total, equal / pixels, worst, worst_picture, 1.0 if miou is None else miou, labelled, miou_f32, miou_lower
    )


def refusal(found: Figures, limits: Limits) -> str | None:
    """Why these figures are past the limits, in a few words; None where they are within."""
    loss = found.miou_loss
    if loss is not None:
        return None if loss <= limits.miou_loss else f"loses {loss:.2f} mIoU, {limits.miou_loss:g} are allowed"
    if found.agreement >= limits.agreement:
        return None
    return (
        f"{100 * found.agreement:.2f} % of the labels are those of f32, {100 * limits.agreement:g} % are needed"
        f" (worst picture {found.worst_picture}: {100 * found.worst:.2f} %)"
    )


def as_report(
    calibration: Figures, held_back: Figures, limits: Limits, *, source: str, computed_by: str, judged_on: str
) -> Report:
    """The accuracy report that is kept beside an engine. `refused` is None where both sets are within limits."""
    sets = {"calibration": calibration, "held back": held_back}
    refused = [f"{name}: {why}" for name, found in sets.items() if (why := refusal(found, limits))]
    return {
        "source": source,
        "calibration": _judged(calibration),
        "held_back": _judged(held_back),
        "limits": vars(limits),
        "computed_by": computed_by,
        "refused": refused[0] if refused else None,
        "judged_on": judged_on,
    }


def _judged(found: Figures) -> Judged:
    return cast(Judged, {**vars(found), "miou_loss": found.miou_loss})
