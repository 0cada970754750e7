"""Segment one array without a pipeline.

python examples/numpy_in_out.py
"""

import numpy as np

import stream_seg

image = np.full((360, 640, 3), 128, np.uint8)  # uint8 (H, W, 3) BGR, as cv2.imread returns it
image[:180] = (230, 200, 160)

with stream_seg.open_engine("road") as engine:
    result = engine(image)

print("labels", result.labels.shape, result.labels.dtype)  # (360, 640) uint8
names, counts = np.unique(result.labels, return_counts=True)
for label, count in zip(names, counts, strict=True):
    print(f"{engine.classes.names[label]:12} {count / result.labels.size:.1%}")
