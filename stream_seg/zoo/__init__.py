"""Segmentation networks that can be built and trained. Nothing here imports torch before a network is built."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from stream_seg.zoo.registry import BUILDERS as BUILDERS
from stream_seg.zoo.registry import explain_untrained as explain_untrained
from stream_seg.zoo.registry import refuse_untrained as refuse_untrained

if TYPE_CHECKING:
    from torch import nn


def build_network(name: str, classes: int) -> nn.Module:
    """Build a network of BUILDERS with new weights, for a number of classes."""
    entry = BUILDERS[name]
    module, _, attribute = entry.builder.partition(":")
    net: nn.Module = getattr(importlib.import_module(module), attribute)(classes, **entry.keys)
    return net
