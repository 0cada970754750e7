"""Segment single images."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
from pydantic import ValidationError

from stream_seg.api.arguments import Document, PathText, network_key
from stream_seg.backends.engine import Engine
from stream_seg.engines.open import open_engine as open_network_engine
from stream_seg.errors import ConfigError
from stream_seg.frame import Frame
from stream_seg.network.network import open_network
from stream_seg.schema.validation import describe_error
from stream_seg.stages.segment import Segment, segment_image
from stream_seg.types import Classes, Image


def open_engine(
    network: PathText | Document = "road",
    *,
    device: str = "auto",
    precision: str = "auto",
    size: tuple[int, int] | None = None,
    threads: int = 1,
) -> ImageEngine:
    """Open a network for single images: `open_engine("road")(image).labels`. Raises NetworkError or ConfigError."""
    try:
        keys = Segment(network_key(network), backend=device, precision=precision, size=size, threads=threads)
    except ValidationError as error:
        fields = Segment.__pydantic_fields__  # type: ignore[attr-defined]
        raise ConfigError(describe_error(error, fields, where="open_engine")) from error
    opened = open_network(keys.network, size=keys.size)
    return ImageEngine(
        open_network_engine(opened, backend=keys.backend, precision=keys.precision, threads=keys.threads)
    )


class ImageEngine:
    """A compiled network that segments one image at a time. A context manager; `close` frees the network."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def classes(self) -> Classes:
        """Class names and colours, by label."""
        return self._engine.spec.classes

    def __call__(self, image: Image) -> Frame:
        """Segment an image of any size, uint8 (H, W, 3) BGR. Raises ValueError for another array."""
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.size) or (
            image.shape[2] != 3
        ):
            raise ValueError(f"expected an image uint8 (H, W, 3) BGR, got {kind}")
        semantic = segment_image(image, self._engine)
        return Frame("image", 0, 0, Fraction(1), time.monotonic_ns(), image, semantic)

    def close(self) -> None:
        """Free the network. Closing twice is allowed."""
        self._engine.close()

    def __enter__(self) -> ImageEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
