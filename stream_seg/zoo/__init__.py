"""The networks that have a name. `network: NAME` takes the trained one; `builder` is for who trains or exports.

Nothing here imports torch: a builder is "module:class", imported by the one who calls it. What belongs to the weights
(size, mean, std, classes, palette) stands in the side-car beside them, networks/NAME.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Entry:
    """Where a network is built, and the side-car (package data, in networks/) of its trained form."""

    builder: str
    sidecar: str


NETWORKS: Mapping[str, Entry] = MappingProxyType(
    {
        "road": Entry(builder="stream_seg.zoo.road:RoadNet", sidecar="road.json"),
    }
)
