"""The networks that have a name. `network: NAME` takes the trained one; `builder` is for who trains or exports.

Nothing here imports torch: a builder is "module:class", imported by the one who calls it. What belongs to the weights
(size, mean, std, classes, palette) stands in the side-car beside them, networks/NAME.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Entry:
    """Where a network is built, and the side-car (package data, in networks/) of its trained form."""

    builder: str
    sidecar: str


@dataclass(frozen=True)
class Builder:
    """A network of the field: `builder` is called with the number of classes and `keys`.

    `parameters` are those at the source's own number of `classes`, and `parameters_source` says who counted. Scores
    come at ceil(H / stride) x ceil(W / stride).
    """

    builder: str
    source: str
    year: int
    classes: int
    parameters: int
    parameters_source: str
    stride: int = 1
    keys: Mapping[str, str | int | bool] = field(default_factory=dict)


NETWORKS: Mapping[str, Entry] = MappingProxyType(
    {
        "road": Entry(builder="stream_seg.zoo.road:RoadNet", sidecar="road.json"),
    }
)

LONG, CHEN = "Long et al., CVPR", "Chen et al., arXiv"
TORCHVISION = "torchvision's published weights (meta num_params), auxiliary head included"

BUILDERS: Mapping[str, Builder] = MappingProxyType(
    {
        "fcn32s": Builder(
            builder="stream_seg.zoo.fcn:FCN",
            source="Long et al., CVPR",
            year=2015,
            classes=21,
            parameters=136_152_917,
            parameters_source="the authors' voc-fcn32s/net.py, summed by layer (paper: 134M, without upscore)",
            keys={"stride": 32},
        ),
    }
)
