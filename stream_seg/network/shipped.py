"""Networks that are part of the package, already trained: `network: road`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

SHIPPED = Path(__file__).parents[1] / "shipped"
"""The folder of the shipped networks: side-car, ONNX, int8 ONNX, model card, and the weights to train on from."""
NETWORKS: Mapping[str, str] = MappingProxyType({"road": "road.json"})
"""Side-car file in SHIPPED by network name."""
