"""A stage and a graph in Python: count the frames in which the road covers less than a third of the lower half.

python examples/stage_in_python.py [INPUT]
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import stream_seg


@dataclass
class RoadBlocked:
    """Print a line for every frame in which little road is visible."""

    share: float = 0.33

    def __call__(self, frames: Iterator[stream_seg.Frame]) -> Iterator[stream_seg.Frame]:
        for frame in frames:
            lower = frame.labels[frame.labels.shape[0] // 2 :]
            visible = (lower == frame.classes.index("road")).mean()
            if visible < self.share:
                print(f"{frame.stream} {frame.time_s:.2f} s: road {visible:.0%}")
            yield frame


source = sys.argv[1] if len(sys.argv) > 1 else "synth://road?size=320x180&frames=20"
keys = {"stage": "synthetic", "width": 320, "height": 180, "frames": 20} if len(sys.argv) < 2 else {"uri": source}
graph = {
    "stages": {
        "capture": keys,
        "segment": {"input": "capture"},
        "blocked": {"stage": RoadBlocked, "input": "segment", "share": 0.5},
    }
}
with stream_seg.Pipeline(graph, frames="blocked") as pipeline:
    count = sum(1 for frame in pipeline)
print(f"{count} frames")
