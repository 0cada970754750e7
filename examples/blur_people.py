"""A stage of your own: blur the pixels of people, for recordings that must not identify anyone.

Used by blur_people.yaml; docs/own_stage.md explains it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from stream_seg import Frame


@dataclass
class BlurPeople:
    """Blur every pixel of the given classes."""

    classes: tuple[str, ...] = ("pedestrian", "bicyclist")
    strength: int = 31

    def __call__(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            if frame.signal is not None:  # a placeholder of a camera that is away has no labels
                yield frame
                continue
            labels = [frame.classes.index(name, where="BlurPeople.classes") for name in self.classes]
            mask = np.isin(frame.labels, labels)[..., None]
            blurred = cv2.blur(frame.image, (self.strength, self.strength))
            yield replace(frame, image=np.where(mask, blurred, frame.image))
