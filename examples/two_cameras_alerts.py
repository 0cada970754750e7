"""Two cameras in one graph: print an alert when people cover more than 2 % of an image.

Prometheus metrics are served on port 9108.

python examples/two_cameras_alerts.py [FRONT REAR [PORT]]
"""

import sys

import numpy as np

import stream_seg

DRIVE = {"stage": "synthetic", "width": 320, "height": 180, "frames": 40}
PEOPLE = 0.02

sources = sys.argv[1:3]
port = int(sys.argv[3]) if len(sys.argv) > 3 else 9108
front, rear = [{"stage": "capture", "uri": uri} for uri in sources] or [DRIVE, {**DRIVE, "seed": 3}]
graph = {
    "stages": {
        "front": front,
        "rear": rear,
        "segment": {"input": ["front", "rear"]},
        "smooth": {"input": "segment"},
    },
    "metrics": {"port": port},
}
with stream_seg.Pipeline(graph, frames="smooth", announce=print) as pipeline:
    for frame in pipeline:
        if frame.signal is not None:  # the camera is away; the frame is a placeholder
            print(f"{frame.stream}: {frame.signal.state}, {frame.signal.reason}")
            continue
        share = np.mean(frame.labels == frame.classes.index("pedestrian"))
        if share > PEOPLE:
            print(f"{frame.stream} {frame.time_s:.1f} s: people cover {share:.0%}")
    print({name: value for name, value in pipeline.metrics().items() if "late_frames_total" in name})
