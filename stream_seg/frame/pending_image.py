"""Images that are converted when a stage reads them: a frame that is dropped before costs no conversion."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from stream_seg.types import Image


class PendingImage:
    """An image of known `shape` = (H, W, 3), made by `convert` on first access, once for all copies of its frame.

    Any thread may read it. The objects that `convert` refers to, such as a decoded frame, are released afterwards.
    """

    def __init__(self, convert: Callable[[], Image], shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._convert: Callable[[], Image] | None = convert
        self._image: Image | None = None
        self._shared, self._lock = False, Lock()

    def read(self) -> Image:
        """Return the image. Raises as `convert` does."""
        with self._lock:
            if self._convert is not None:
                self._image = self._convert()
                self._convert = None
                if self._shared:
                    self._image.flags.writeable = False
            assert self._image is not None
            return self._image

    def share(self) -> None:
        """Make the image read-only, now or once it is converted."""
        with self._lock:
            self._shared = True
            if self._image is not None:
                self._image.flags.writeable = False


def read_image(image: Image | PendingImage) -> Image:
    """Return an image, converted if it is pending."""
    return image.read() if isinstance(image, PendingImage) else image
