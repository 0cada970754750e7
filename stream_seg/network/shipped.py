"""Trained networks that are part of the package: `network: road`."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "shipped"
"""Folder of the shipped networks: side-car, ONNX, int8 ONNX, model card, and the weights to continue training from."""
NETWORKS: dict[str, str] = {"road": "road.json"}
"""Side-car file in SHIPPED by network name."""
