"""What weights expect of a picture. A wrong colour order or scale costs no error, only accuracy: so it is said once."""

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
    """Each channel is (x / scale - mean) / std, in the order of `colour`; x is 0 to 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    colour: Colour = "bgr"
    scale: float = 255.0

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:g}" for value in three) for three in (self.mean, self.std))
        return f"colour {self.colour}, scale {self.scale:g}, mean {mean}, std {std}"

    def in_bgr(self, values: Three) -> Three:
        """`mean` or `std`, blue green red."""
        return values if self.colour == "bgr" else values[::-1]


class Normalise(nn.Module):
    """From pictures uint8 (N, H, W, 3) BGR to what the network takes: float32 (N, 3, H, W), one gain and one offset."""

    gain: Tensor
    offset: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.turned = spec.colour == "rgb"
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("gain", (1 / (spec.scale * std)).reshape(1, 3, 1, 1))
        self.register_buffer("offset", (-mean / std).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        # TensorRT takes uint8 only at the input: cast first, then transpose
        x = image.to(self.gain.dtype).permute(0, 3, 1, 2)
        if self.turned:
            x = torch.cat([x[:, 2:], x[:, 1:2], x[:, :1]], dim=1)
        return x * self.gain + self.offset
