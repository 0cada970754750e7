"""Class scores that were said of an earlier picture: moved to the present only when somebody asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.arrays import Labels, Scores

if TYPE_CHECKING:
    from stream_seg.ops.motion import Motion


@dataclass(frozen=True, eq=False)
class Base:
    """Scores (C, h, w) that later frames are carried from, and where these are of one mind."""

    scores: Scores

    @cached_property
    def known(self) -> Labels:
        """What is `settled` of them, uint8 (h, w)."""
        from stream_seg.ops.carry import settled  # brings numba: not for a help text

        return settled(self.scores)


@dataclass(frozen=True, eq=False)
class Carried:
    """A base, and the motion since its picture, of any resolution. Scores and labels are those at the present."""

    base: Base
    motion: Motion

    @cached_property
    def scores(self) -> Scores:
        """float32 (C, h, w)."""
        from stream_seg.ops.carry import moved

        return moved(self.base.scores, self._motion())

    def labels(self, size: tuple[int, int]) -> Labels:
        """uint8 (height, width) of `size`: as of the scores here, enlarged, at two thirds of the price."""
        from stream_seg.ops.carry import moved_labels
        from stream_seg.ops.labels import upsampled_argmax

        if min(self.base.scores.shape[1:]) < 2:
            return upsampled_argmax(self.scores, size)
        return moved_labels(self.base.scores, self.base.known, self._motion(), size=size)

    def _motion(self) -> Motion:
        from stream_seg.ops.motion import resized

        height, width = self.base.scores.shape[1:]
        return resized(self.motion, (height, width))


class LazyScores:
    """The field `Semantic.scores`: given as an array, as `Carried` or as None; read as an array or None."""

    def __get__(self, semantic: Any, _: type | None = None) -> NDArray[np.float32] | None:
        if semantic is None:  # what the field is where nothing is given
            return None
        given = given_scores(semantic)
        return given.scores if isinstance(given, Carried) else given

    def __set__(self, semantic: Any, scores: NDArray[np.float32] | Carried | None) -> None:
        vars(semantic)["scores"] = scores


def given_scores(semantic: Any) -> Scores | Carried | None:
    """The scores of a Semantic as they were given, not yet moved."""
    given: Scores | Carried | None = vars(semantic)["scores"]
    return given
