"""The input that weights expect, and its normalisation. A wrong colour order or scale costs accuracy, not an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Three = Sequence[float]
Colour = Literal["bgr", "rgb"]


@dataclass(frozen=True)
class InputSpec:
    """The input of a network: channels (x / scale - mean) / std in the order of `colour`, for x from 0 to 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    colour: Colour = "bgr"
    scale: float = 255.0

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:g}" for value in three) for three in (self.mean, self.std))
        return f"colour {self.colour}, scale {self.scale:g}, mean {mean}, std {std}"

    def in_bgr(self, values: Three) -> Three:
        """Return `mean` or `std` in the order blue, green, red."""
        return values if self.colour == "bgr" else values[::-1]


class Normalise(nn.Module):
    """Normalise images: uint8 (N, H, W, 3) BGR to float32 (N, 3, H, W), by one gain and one offset per channel."""

    gain: Tensor
    offset: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.to_rgb = spec.colour == "rgb"
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("gain", (1 / (spec.scale * std)).reshape(1, 3, 1, 1))
        self.register_buffer("offset", (-mean / std).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        # TensorRT takes uint8 only at the input: cast first, then transpose
        x = image.to(self.gain.dtype).permute(0, 3, 1, 2)
        if self.to_rgb:
            x = torch.cat([x[:, 2:], x[:, 1:2], x[:, :1]], dim=1)
        return x * self.gain + self.offset
