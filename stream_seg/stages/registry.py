"""Every kind of stage, by the name that a graph file uses."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stream_seg.stages.base import Stage
from stream_seg.stages.capture import Capture
from stream_seg.stages.masks import Masks
from stream_seg.stages.overlay import Overlay
from stream_seg.stages.records import Records
from stream_seg.stages.segment import Segment
from stream_seg.stages.serve import Serve
from stream_seg.stages.show import Show
from stream_seg.stages.smooth import Smooth
from stream_seg.stages.synthetic import Synthetic
from stream_seg.stages.write import Write

SOURCES: Mapping[str, type[Stage]] = MappingProxyType({"capture": Capture, "synthetic": Synthetic})
FILTERS: Mapping[str, type[Stage]] = MappingProxyType({"segment": Segment, "smooth": Smooth, "overlay": Overlay})
SINKS: Mapping[str, type[Stage]] = MappingProxyType(
    {"write": Write, "show": Show, "masks": Masks, "records": Records, "serve": Serve}
)
STAGES: Mapping[str, type[Stage]] = MappingProxyType({**SOURCES, **FILTERS, **SINKS})
